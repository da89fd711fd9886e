"""The end of a job's time, as SLURM tells a job of it.

Fault model: the limit of a batch job comes near; SLURM's controller finds that out by itself, as
always, and sends the signal that was asked for (`--signal=B:USR1@60`) to the batch script, which
passes it on to its ranks, and requeues the job when they have ended. At the point the limit is set
to two minutes from there, and the rank of the point stands still, right after its training step,
until its signal has come. So the step at which the job learns of it does not hang on SLURM, which
looks at time limits every 30 seconds.

What must survive: the job, which saves once more, ends in order, and goes on when it is started
again. Out of scope: ranks that do not end before the limit, whom SLURM kills; a signal that comes
before the loop listens; preemption and the failure of a node, which requeue without a signal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.plan.model import Strike

GoOn = Callable[[], None]
"""Lets the rank that was held up go on."""


@dataclass(slots=True)
class TimeLimit:
    """What waits for the signal of a time limit."""

    _strike: Strike | None = None
    _missing: set[int] = field(default_factory=set)
    _waiting: list[GoOn] = field(default_factory=list)

    def begin(self, strike: Strike) -> None:
        """The limit was set because of this strike."""
        self._strike, self._missing = strike, set(strike.ranks)

    def hold(self, go_on: GoOn) -> None:
        """Call this when every rank has its signal."""
        self._waiting.append(go_on)

    def signalled(self, *ranks: int) -> Strike | None:
        """These ranks have got a signal; the strike, if they were the last that it hits."""
        if self._strike is None or not self._missing:
            return None
        self._missing -= set(ranks)
        return None if self._missing else self._strike

    def release(self) -> None:
        """What waited for the signal goes on."""
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()
