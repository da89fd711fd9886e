"""The wall clock of a rank jumps, and from then on differs from those of the others.

Fault model: right after a training step, or as the rank enters a period of its life, its wall clock
is set ahead of the machine's by some seconds, or behind it, as when a host's clock is corrected or
was never set. All code of the rank sees that clock, and what is due by it comes due there alone.
The times of files are those of the machine, as on a file server.

What must survive: the job, as if nothing had happened: no rank saves, stops or deletes because of
what its own clock says. Out of scope: clocks that only move forward, by which deadlines are kept;
clocks that run too fast or too slowly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.faults.base import LoopFault, OneRank

_LEAST_S = 60


class Jumping(OneRank):
    """Which rank's clock jumps, and by how many seconds; it goes back if negative."""

    ahead_s: int


class ClockJump(LoopFault):
    """The wall clock of one rank jumps: it is ahead of those of the others, or behind them."""

    word: ClassVar[str] = "clock"
    area: ClassVar[str | None] = "loop"
    simplest: ClassVar[Mapping[str, Any]] = {"ahead_s": _LEAST_S}
    clock: Jumping

    @property
    def clock_ahead_s(self) -> int:
        return self.clock.ahead_s

    def describe(self) -> str:
        seconds = self.clock.ahead_s
        where = "ahead" if seconds >= 0 else "behind"
        return f"the clock of rank {self.clock.rank} is set {abs(seconds)} s {where}"
