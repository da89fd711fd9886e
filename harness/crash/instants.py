"""The instants of a job at which a power cut is considered, in the one order of all its ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.crash.acknowledged import acknowledged_in
from harness.disk.disk import Disk, JournalEntry
from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """The state after `place` operations of a run.

    `acknowledged` has the steps that were acknowledged to the job. `operation` is the one that was
    just performed and `change` what it changed; both are None at an acknowledgement.
    """

    run: int
    place: int
    acknowledged: frozenset[int]
    operation: Operation | None = None
    change: JournalEntry | None = None


def instants(evidence: Evidence, disk: Disk) -> Iterator[Instant]:
    """Let the disk follow all runs; yield after each change, sync and acknowledgement."""
    for number, run in enumerate(leading_runs(evidence)):
        yield from _of_run(evidence, disk, number, run)
        disk.files.end_run()


def leading_runs(evidence: Evidence) -> tuple[RunEvidence, ...]:
    """Returns the runs before an external actor changes the directory or the layout changes.

    Operations after a power cut that really happened are left out. The question of what a power cut
    may take concerns one job that is alone in its directory, from its first operation on.
    """
    if evidence.given is not None:
        return ()
    for number, plan in enumerate(evidence.plan.runs[: len(evidence.runs)]):
        others = any(one.fault.is_from_outside for one in plan.strikes)
        changed = plan.world or plan.model or plan.freeze or plan.refused
        if number in evidence.at_rest or plan.before or changed:
            return evidence.runs[:number]
        if others:
            return evidence.runs[:number]
        run = evidence.runs[number]
        if run.operations and run.operations[-1].kind == "cut":
            return (*evidence.runs[:number], replace(run, operations=run.operations[:-1]))
    return evidence.runs


def _of_run(evidence: Evidence, disk: Disk, number: int, run: RunEvidence) -> Iterator[Instant]:
    words = list(acknowledged_in(evidence, number))
    steps: frozenset[int] = frozenset()
    for place in range(len(run.operations) + 1):
        news = [one for one in words if one.place == place]
        if news:
            steps = news[-1].steps
            yield Instant(run=number, place=place, acknowledged=steps)
        if place == len(run.operations):
            return
        operation = run.operations[place]
        change = disk.apply(number, operation, run.written)
        syncs = operation.error == 0 and operation.kind in ("fsync", "sync")
        if change is not None or syncs:
            yield Instant(
                run=number, place=place + 1, acknowledged=steps, operation=operation, change=change
            )
