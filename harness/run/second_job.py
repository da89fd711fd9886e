"""A second job on the same directory, started while the first one is alive.

Fault model: an operator or a scheduler starts the job once more, with as many ranks, which meet in
a store of their own. At the point one rank of the first job stands still, in its operation or right
after its training step, until every rank of the second job has ended; the other ranks go on until
they need it. So the second job does all that it will do at one instant of the first, and nothing
depends on which of them is faster. It resumes, trains and saves as any job; nothing strikes it.

What must survive: the second job is refused before it changes anything, with an error on every
rank, and the first one goes on unharmed. Its operations are in the trace, with rank numbers that
follow on those of the first job. Out of scope: a second job on another machine, one that only
reads, and two jobs that write at the very same time because no rank stands still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.plan.model import Strike

GoOn = Callable[[], None]
"""Lets the rank that was held up go on."""


@dataclass(slots=True, kw_only=True)
class SecondJob:
    """The ranks of a second job, and what waits for their end. `first` is its lowest rank."""

    first: int
    strike: Strike | None = None
    _left: set[int] = field(default_factory=set)
    _waiting: list[GoOn] = field(default_factory=list)

    def begin(self, strike: Strike) -> None:
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
