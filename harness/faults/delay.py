"""One operation takes long; other ranks and threads go on.

What must survive: the job. The save can be given up if the operation takes as long as the manager's
own deadline. Out of scope: storage that is slow for all ranks.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.faults.base import OneRank, OperationFault
from harness.faults.effects import Effects, PlannedStrike, Treatment


class Pausing(OneRank):
    """How long the operation takes."""

    seconds: float = Field(gt=0)


class Delay(OperationFault):
    """One operation takes long; other ranks and threads go on."""

    word: ClassVar[str] = "delay"
    area: ClassVar[str | None] = "storage"
    does: ClassVar[tuple[str, str]] = ("waits for its storage", "")
    delay: Pausing

    def may_be_silent_s(self) -> float:
        return self.delay.seconds

    def stalls(self, timeout_s: float | None) -> bool:
        return timeout_s is not None and self.delay.seconds >= timeout_s

    def may_end_run(self, *, goes_on: bool, timeout_s: float | None) -> bool:
        return not goes_on and self.stalls(timeout_s)

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> Treatment:
        effects.record_fired(strike)
        return Treatment(kind="wait", seconds=self.delay.seconds)
