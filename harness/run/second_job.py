"""The ranks of a second job on the same directory, and what waits for their end.

Its operations are in the trace; its rank numbers follow those of the first job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.faults.effects import PlannedStrike

GoOn = Callable[[], None]
"""Lets the paused rank go on."""


@dataclass(slots=True, kw_only=True)
class SecondRanks:
    """The ranks of a second job, and what waits for their end. `first` is its lowest rank."""

    first: int
    strike: PlannedStrike | None = None
    _left: set[int] = field(default_factory=set)
    _waiting: list[GoOn] = field(default_factory=list)

    def begin(self, strike: PlannedStrike) -> None:
        """Note the strike because of which the second job is started."""
        self.strike = strike
        self._left = set(range(self.first, 2 * self.first))

    def has(self, rank: int) -> bool:
        """Whether a rank belongs to it."""
        return rank >= self.first

    def hold(self, go_on: GoOn) -> None:
        """Call this once the second job is over."""
        self._waiting.append(go_on)

    def ended(self, rank: int) -> bool:
        """Note that one of its ranks has ended; returns whether it was the last."""
        self._left.discard(rank)
        return not self._left

    def release(self) -> None:
        """Let everything that waited for the second job go on."""
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()
