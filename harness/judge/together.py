"""Combines the samples that the ranks of a run have read in each step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.evidence.record import Stepped
from harness.judge.event_logs import EventLog, steps
from harness.world import World


def read_together(
    event_logs: Sequence[EventLog], world: World
) -> tuple[dict[int, Stepped], list[str]]:
    """Returns one record with all samples of the step, in order, for each step that all finished.

    Also reports stages or tensor-parallel peers, which share a batch, that have not read the same.
    """
    by_rank = [steps(event_log) for event_log in event_logs]
    complete = sorted(set(by_rank[0]).intersection(*by_rank[1:])) if by_rank else []
    read: dict[int, Stepped] = {}
    apart: list[str] = []
    for step in complete:
        batches: dict[int, tuple[int, ...]] = {}
        for rank, records in enumerate(by_rank):
            samples = records[step].samples
            share = world.data_rank_of(rank)
            if batches.setdefault(share, samples) != samples:
                apart.append(f"rank {rank}, step {step}: saw other samples than its peers")
        samples = tuple(sorted(sample for batch in batches.values() for sample in batch))
        read[step] = dataclasses.replace(by_rank[0][step], samples=samples)
    return read, apart[:1]
