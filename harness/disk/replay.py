"""Replays all that happened to the checkpoint directory, in the one order of the evidence.

It comes in stretches: what the plan began with, an operator's actions before a run, the run itself.
Files that one stretch left open are closed before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.content import Bytes
from harness.evidence.evidence import Evidence
from harness.evidence.operation import Operation


class Stretch(NamedTuple):
    """Operations one after the other, and the bytes of their writes."""

    run: int
    """The run that made them, or before which they were made."""
    operations: Sequence[Operation]
    written: Bytes


def happened(evidence: Evidence, run: int, operations: int | None = None) -> Iterator[Stretch]:
    """Yields everything up to a number of operations of a run, or up to its end."""
    for number in range(run + 1):
        yield from before_run(evidence, number)
        this = evidence.runs[number]
        done = this.operations[: operations if number == run else None]
        yield Stretch(number, done, this.written)


def before_run(evidence: Evidence, run: int) -> Iterator[Stretch]:
    """Yields the changes between the end of the previous run and the start of this one."""
    if evidence.given is not None and run == evidence.plan.past:
        yield Stretch(run, (evidence.given.operation,), evidence.given.written)
    at_rest = evidence.at_rest.get(run)
    for done in at_rest.done if at_rest is not None else ():
        yield Stretch(run, done.operations, at_rest.written if at_rest is not None else b"")
