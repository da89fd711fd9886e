"""Checks a directory that is moved away while the job runs: nothing is saved in its place.

What has its name then is nothing, or another directory. A save that succeeds there is acknowledged
as durable and is lost when the mount comes back. So every operation that changes something counts
against the checkpointer, except for names that it makes and removes again. The evidence is the
operations between the two actions of the operator, or until the end of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.evidence.evidence import Evidence
from harness.evidence.operation import Operation
from harness.faults.actions import Displace
from harness.judge.changes import lasting


def is_asked(evidence: Evidence) -> bool:
    """Whether the scenario moves the directory away while the job runs."""
    return any(
        isinstance(one.fault.action, Displace) for run in evidence.plan.runs for one in run.strikes
    )


def touched(evidence: Evidence) -> Iterator[str]:
    """Yields runs in which something was changed while the directory was away."""
    for number, run in enumerate(evidence.runs):
        made = lasting(_while_away(run.operations))
        if made:
            first = made[0]
            yield (
                f"run {number}: {len(made)} operations were made in the place of the directory, "
                f"the first {first.kind} {first.path}"
            )


def _while_away(operations: Sequence[Operation]) -> Iterator[Operation]:
    away = False
    for one in operations:
        if one.kind in ("displace", "put_back"):
            away = one.kind == "displace"
        elif away:
            yield one
