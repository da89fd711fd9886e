"""Lists the saves that were acknowledged to the job, at each instant of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.evidence.evidence import Evidence
from harness.judge.acknowledgements import acknowledged_at, acknowledged_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """The steps acknowledged to a rank as durable, after `place` operations of a run."""

    place: int
    steps: frozenset[int]


def acknowledged_in(evidence: Evidence, run: int) -> Iterator[Acknowledged]:
    """Yields the acknowledged saves when a run began, and after each further one.

    A run with `load_step` continues from that step; acknowledgements of later steps are void.
    """
    background = evidence.plan.in_background
    steps: frozenset[int] = frozenset()
    for number in range(run + 1):
        load_step = evidence.plan.runs[number].load_step
        if load_step is not None:
            steps = frozenset(step for step in steps if step <= load_step) | {load_step}
        if number < run:
            steps |= acknowledged_steps(evidence.runs[number], background=background)
    yield Acknowledged(place=0, steps=steps)
    found = acknowledged_at(evidence.runs[run], background=background)
    for step, place in sorted(found.items(), key=lambda item: item[1]):
        steps |= {step}
        yield Acknowledged(place=place, steps=steps)
