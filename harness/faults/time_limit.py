"""The time limit of a job, as SLURM announces it.

Fault model: the time limit of a batch job comes near. SLURM's controller notices by itself, as
always, sends the requested signal (`--signal=B:USR1@60`) to the batch script, which passes it on to
its ranks, and requeues the job when they have ended. At the point, the limit is set to two minutes
from then, and the rank of the point is paused, right after its training step, until its signal has
come. So the step at which the job notices does not depend on SLURM, which checks time limits every
30 seconds.

What must survive: the job, which saves once more, ends in order, and continues when it is
restarted. Out of scope: ranks that do not end before the limit, which SLURM kills; a signal that
comes before the loop listens; preemption and node failure, which requeue without a signal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import model_validator

from harness.faults.base import Fault, Owed, Surroundings
from harness.faults.effects import Effects, PlannedStrike, Treatment
from harness.part import Part, Place

_SIGNALLED = Owed(word="signalled", otherwise="the launcher sent no signal")


class Expiring(Part):
    """Whose time is over: the whole job's."""

    rank: Literal["all"] = "all"


class TimeLimit(Fault):
    """SLURM's time limit comes near: every rank gets its signal, and SLURM restarts the job."""

    word: ClassVar[str] = "time_limit"
    asks_to_end: ClassVar[str | None] = "SIGUSR1"
    ends_run: ClassVar[bool] = True
    is_beside_others: ClassVar[bool] = False
    area: ClassVar[str | None] = "launchers"
    drawn_at: ClassVar[tuple[str, ...]] = ()
    time_limit: Expiring

    @model_validator(mode="after")
    def _comes_after_a_step(self) -> TimeLimit:
        if self.at.step is None or self.at.once_published:
            raise ValueError("`time_limit` comes after a training step: its point has only `step`")
        return self

    def owes(self) -> Owed | None:
        return _SIGNALLED

    def describe(self) -> str:
        return "the time limit comes"

    def impossible(self, around: Surroundings) -> Iterator[tuple[Place, str]]:
        if not around.is_requeued:
            needs = "`launcher: {kind: slurm, restarts: 1}` and a run after this"
            yield (), f"`time_limit` needs {needs}"

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> Treatment:
        effects.record_fired(strike)
        effects.expire(strike)
        return Treatment(kind="time_limit")

    def may_be_silent_s(self) -> float:
        # SLURM checks time limits every 30 s.
        return 60.0
