"""SIGKILL of ranks: no buffer is flushed, no `finally` runs.

Fault model: a rank dies together with its sub-processes, as when a container ends, exactly before
or after an operation, after a training step, or as it enters a period of its life. What it had
written stays in the page cache.

What must survive: everything that was acknowledged to the job. Out of scope: SIGKILL of a single
thread or sub-process.
"""

from __future__ import annotations

from typing import ClassVar

from harness.faults.base import Fault, Target
from harness.faults.effects import Effects, PlannedStrike


class Kill(Fault):
    """SIGKILL: no buffer is flushed, no `finally` runs."""

    word: ClassVar[str] = "kill"
    does: ClassVar[tuple[str, str]] = ("is killed", "are killed")
    ends_run: ClassVar[bool] = True
    kill: Target

    @property
    def is_deadly(self) -> bool:
        return True

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> None:
        effects.kill(strike)
