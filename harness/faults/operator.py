"""An operator changes the checkpoint directory at an instant of a run.

Fault model: an action that is possible between two runs happens at a point while the job runs. All
of it comes before anything else that the ranks do, and is durable at once. An action that finds
nothing to hit, or changes nothing, is not done: its strike does not fire.

What must survive: everything that the operator did not damage, and the job, which goes on saving.
Out of scope: an operator who changes what a save in flight has written so far, and one who changes
two things with the job acting in between.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from harness.faults.actions import Acting, Action, Displace
from harness.faults.base import Fault
from harness.faults.effects import Effects, PlannedStrike
from harness.world import World


class Operator(Fault):
    """An operator changes the directory at a point, before the job does anything else."""

    word: ClassVar[str] = "operator"
    is_from_outside: ClassVar[bool] = True
    is_beside_others: ClassVar[bool] = False
    drawn_at: ClassVar[tuple[str, ...]] = ("step", "operation")
    area: ClassVar[str | None] = "operator"
    operator: Action

    @model_validator(mode="after")
    def _can_happen_to_a_live_job(self) -> Operator:
        action = self.operator.word
        if action in ("leftover", "relocate"):
            raise ValueError(f"`{action}` is only possible between two runs")
        if self.at.during in ("building", "loading"):
            raise ValueError(
                f"during `{self.at.during}` the start has not chosen a checkpoint yet: put the "
                "action into `before` of the run"
            )
        return self

    def ranks_hit(self, world: World) -> tuple[int, ...]:
        return ()

    def label(self) -> str:
        return f"{self.word}-{self.operator.word}"

    def may_fail_saves(self, timeout_s: float | None) -> bool:
        return isinstance(self.operator, Displace)

    @property
    def asks(self) -> str | None:
        return self.operator.asks

    def describe(self) -> str:
        return f"{self.operator.describe()} while the job runs,"

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> None:
        effects.act(strike, self.operator)

    @property
    def action(self) -> Acting | None:
        return self.operator
