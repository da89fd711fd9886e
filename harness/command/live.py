"""Faults while a command lives, where a state of its directory is not enough.

Storage answers an error, a rank is killed while the others go on, or all ranks are asked to end.
The command may end with an error; it must end, and the start after it must come to the result of
the uninterrupted run. Each kind of operation is struck where it is first made, in the middle of
all, and where it is last made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.evidence.operation import Operation
from harness.faults.base import Fault, Target
from harness.faults.fail import Fail, Failing
from harness.faults.kill import Kill
from harness.faults.point import Point
from harness.faults.sigterm import Sigterm, Terminating
from harness.faults.strike import Strike, make_strike
from harness.world import World

GRACE_S = 10.0
"""Between SIGTERM and SIGKILL."""
_ERRORS = {  # the most telling kind first
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO",),
    "rename": ("EIO",),
    "mkdir": ("ENOSPC",),
    "open": ("ENOSPC",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFault:
    """A fault at an operation of the uninterrupted run, the `place`-th of all."""

    strike: Strike
    place: int
    text: str


def live_faults(operations: Sequence[Operation], *, ranks: int) -> list[LiveFault]:
    """Returns the faults, so that any beginning of the list has one of each kind."""
    by_kind: dict[tuple[int, str], list[tuple[int, Operation]]] = {}
    for place, one in enumerate(operations, 1):
        if one.kind in _ERRORS and not one.error and (one.kind != "open" or one.creates):
            by_kind.setdefault((one.rank, one.kind), []).append((place, one))
    rounds: list[list[LiveFault]] = [[], [], []]
    order = list(_ERRORS)
    for (rank, kind), made in sorted(by_kind.items(), key=lambda one: order.index(one[0][1])):
        for number, nth in enumerate(dict.fromkeys((1, (len(made) + 1) // 2, len(made)))):
            place, operation = made[nth - 1]
            at = Point(rank=rank, operation=kind, nth=nth)
            for fault in _faults(rank, kind, at, ranks=ranks):
                strike = make_strike(fault, 0, World(dp_shard=ranks))
                what = f"operation {place}, {operation.kind} {operation.path}"
                text = f"{fault.describe()} at {what}"
                rounds[number].append(LiveFault(strike=strike, place=place, text=text))
    return [one for same in rounds for one in same]


def _faults(rank: int, kind: str, at: Point, *, ranks: int) -> Iterator[Fault]:
    for error in _ERRORS[kind]:
        yield Fail(fail=Failing(rank=rank, error=error), at=at)
    if kind == "write":
        # A full disk stays full until somebody makes room.
        yield Fail(fail=Failing(rank=rank, error="ENOSPC", times="always"), at=at)
        yield Sigterm(sigterm=Terminating(rank="all", grace_s=GRACE_S), at=at)
        if ranks > 1:
            yield Kill(kill=Target(rank=rank), at=at)
