"""Replays all that happened to the checkpoint directory, in the one order of the evidence.

It comes in stretches: what the plan began with, an operator's actions before a run, the run itself.
Files that one stretch left open are closed before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from harness.content import Bytes
from harness.evidence.evidence import Evidence
from harness.evidence.operation import OPERATOR, Operation


class Stretch(NamedTuple):
    """Operations one after the other, and the bytes of their writes."""

    run: int
    """The run that made them, or before which they were made."""
    operations: Sequence[Operation]
    written: Bytes
    action: str = ""
    """The action of an operator before the run that consists of these."""


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
    yield from at_rest(evidence, run)


def at_rest(evidence: Evidence, run: int) -> Iterator[Stretch]:
    """Yields the operator's actions before a run."""
    found = evidence.at_rest.get(run)
    if found is not None:
        for done in found.done:
            yield Stretch(run, done.operations, found.written, done.action)


def by_actor(stretch: Stretch) -> Iterator[tuple[str, Stretch]]:
    """Splits a run's operations into those of `ranks`, of the `operator`, and the `cut`."""
    for actor, operations in groupby(stretch.operations, key=_actor):
        yield actor, stretch._replace(operations=tuple(operations))


def _actor(operation: Operation) -> str:
    if operation.kind == "cut":
        return "cut"
    return "operator" if operation.rank == OPERATOR else "ranks"
