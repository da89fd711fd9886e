"""An operator that changes the directory in mid-run; the trace records it as rank -1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.faults.actions import Action
from harness.faults.effects import PlannedStrike
from harness.layouts.base import Layout
from harness.plan.model import OperatorAction
from harness.run.at_rest import do_at_rest
from harness.run.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class LateOperator:
    """Does the actions of one run to its directory, and records them in its trace."""

    root: Path
    trace: Trace
    seed: int
    layout: Layout

    def act(self, strike: PlannedStrike, action: Action) -> None:
        """Do what this strike says; it fires if that changed something."""
        decided = OperatorAction.of(action, strike.id, self.seed)
        self.trace.written.settle()
        found = do_at_rest(
            (decided,), self.root, self.trace.operations, self.trace.written, self.layout
        )
        if found.done[0].problem is not None:
            return
        self.trace.strike(strike.id, ())
        for one in found.done[0].operations:
            self.trace.operations.append(
                one._replace(index=len(self.trace.operations), time_s=self.trace.seconds())
            )
