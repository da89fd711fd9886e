"""SIGTERM, as a cluster scheduler sends it before it takes the machine; SIGKILL after a grace.

A rank that waits in an intercepted call is hit when that call returns. What must survive: the job,
which saves once more and ends in order; after the grace, everything that was acknowledged to it.
While a rank builds its job nothing handles the signal yet: it may die of it, and the next start
resumes from the same checkpoint.
Out of scope: SIGTERM to the sub-processes of a rank, and the exact operation at which a grace ends.
That is a time, so a scenario that needs the place makes an operation there `hang` or `delay`.
"""

from __future__ import annotations

import signal
from typing import ClassVar

from pydantic import Field

from harness.faults.base import Fault, Target
from harness.faults.effects import Effects, PlannedStrike


class Terminating(Target):
    """Which rank is asked to end, and how long it can take before it is killed."""

    grace_s: float | None = Field(
        None, gt=0, description="SIGKILL for ranks still alive after this time; default: never"
    )


class Sigterm(Fault):
    """SIGTERM, as a cluster scheduler sends it before it takes the machine."""

    word: ClassVar[str] = "sigterm"
    asks_to_end: ClassVar[str | None] = "SIGTERM"
    ends_run: ClassVar[bool] = True
    area: ClassVar[str | None] = "signals"
    does: ClassVar[tuple[str, str]] = ("gets SIGTERM", "get SIGTERM")
    sigterm: Terminating

    @property
    def is_deadly(self) -> bool:
        """Whether it comes before the handlers of the job."""
        return self.at.during == "building"

    def may_end_run(self, *, goes_on: bool, timeout_s: float | None) -> bool:
        return self.is_deadly

    def may_be_silent_s(self) -> float:
        return self.sigterm.grace_s or 0.0

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> None:
        effects.send(strike, signal.SIGTERM, kill_after_s=self.sigterm.grace_s)
