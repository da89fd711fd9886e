"""The ranks of a second job on the same directory, and what waits for their end.

Its operations are in the trace, with rank numbers that follow on those of the first job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.faults.effects import PlannedStrike

GoOn = Callable[[], None]
"""Lets the rank that was held up go on."""


@dataclass(slots=True, kw_only=True)
class SecondRanks:
    """The ranks of a second job, and what waits for their end. `first` is its lowest rank."""

    first: int
    strike: PlannedStrike | None = None
    _left: set[int] = field(default_factory=set)
    _waiting: list[GoOn] = field(default_factory=list)

    def begin(self, strike: PlannedStrike) -> None:
        """It is being started because of this strike."""
        self.strike = strike
        self._left = set(range(self.first, 2 * self.first))

    def has(self, rank: int) -> bool:
        """Whether a rank is one of its."""
        return rank >= self.first

    def hold(self, go_on: GoOn) -> None:
        """Call this when it is over."""
        self._waiting.append(go_on)

    def ended(self, rank: int) -> bool:
        """One of its ranks has ended; whether it was the last."""
        self._left.discard(rank)
        return not self._left

    def release(self) -> None:
        """It is over: what waited for it goes on."""
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()
