"""Holds ranks until the signal of a SLURM time limit has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.faults.effects import PlannedStrike

GoOn = Callable[[], None]
"""Lets the paused rank go on."""


@dataclass(slots=True)
class LimitSignal:
    """Holds ranks until the signal of a time limit has come."""

    _strike: PlannedStrike | None = None
    _missing: set[int] = field(default_factory=set)
    _waiting: list[GoOn] = field(default_factory=list)

    def begin(self, strike: PlannedStrike) -> None:
        """Note the strike because of which the limit was set."""
        self._strike, self._missing = strike, set(strike.ranks)

    def hold(self, go_on: GoOn) -> None:
        """Call this once every rank has its signal."""
        self._waiting.append(go_on)

    def signalled(self, *ranks: int) -> PlannedStrike | None:
        """Note ranks that got a signal; returns the strike if they were the last of its ranks."""
        if self._strike is None or not self._missing:
            return None
        self._missing -= set(ranks)
        return None if self._missing else self._strike

    def release(self) -> None:
        """Lets the held ranks go on."""
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()
