"""SIGSTOP, and SIGCONT some seconds later: a rank that hangs and comes back.

A rank that waits in an intercepted call is stopped when that call returns. What must survive: the
job, as if nothing had happened.
"""

from __future__ import annotations

import signal
from typing import ClassVar

from pydantic import Field

from harness.faults.base import Fault, Target
from harness.faults.effects import Effects, PlannedStrike


class Stopping(Target):
    """Which rank is stopped, and for how long."""

    seconds: float = Field(gt=0)


class Stop(Fault):
    """SIGSTOP, and SIGCONT some seconds later: a rank that hangs and comes back."""

    word: ClassVar[str] = "stop"
    area: ClassVar[str | None] = "storage"
    does: ClassVar[tuple[str, str]] = ("is stopped for a while", "are stopped for a while")
    drawn_at: ClassVar[tuple[str, ...]] = ("operation",)
    stop: Stopping

    def may_be_silent_s(self) -> float:
        return self.stop.seconds

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> None:
        effects.send(strike, signal.SIGSTOP, wake_after_s=self.stop.seconds)
