"""One operation never returns; only SIGKILL ends the thread that waits for it.

What must survive: the committed checkpoints, and the other ranks, which get an error in time.
"""

from __future__ import annotations

from typing import ClassVar

from harness.faults.base import OneRank, OperationFault
from harness.faults.effects import Effects, PlannedStrike, Treatment


class Hang(OperationFault):
    """One operation never returns; only SIGKILL ends the thread that waits for it."""

    word: ClassVar[str] = "hang"
    area: ClassVar[str | None] = "storage"
    does: ClassVar[tuple[str, str]] = ("waits forever for its storage", "")
    hang: OneRank

    def stalls(self, timeout_s: float | None) -> bool:
        return True

    def may_end_run(self, *, goes_on: bool, timeout_s: float | None) -> bool:
        return not goes_on

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> Treatment:
        effects.record_fired(strike)
        return Treatment(kind="wait")
