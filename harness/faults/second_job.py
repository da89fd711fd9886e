"""The job is started a second time on the same directory, while the first one is alive.

Fault model: an operator or a scheduler starts the job again, with as many ranks, which meet in a
store of their own. At the point, one rank of the first job is paused, in its operation or right
after its training step, until every rank of the second job has ended; the other ranks go on until
they need it. So the whole second job happens at one instant of the first, and nothing depends on
which of the two is faster. It resumes, trains and saves like any job; nothing strikes it.

What must survive: the second job is refused before it changes anything, with an error on every
rank, and the first one goes on unharmed. Out of scope: a second job that only reads, and two jobs
that write at the very same time because no rank is paused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from harness.faults.base import Fault, OneRank, Owed, Surroundings, expression
from harness.faults.effects import Effects, PlannedStrike, Treatment
from harness.part import Place
from harness.words import HOSTS

_ENDED = Owed(word="ended", otherwise="the second job never ended")


class Joining(OneRank):
    """Which rank's operation lasts until the second job is over, and how that must end."""

    refused: str = Field(
        min_length=1, description="a regular expression that the second job's error must match"
    )
    host: Literal[HOSTS] = Field(  # type: ignore[valid-type]
        "first", description="where it is started; `other` shares no lock and no cache"
    )

    @field_validator("refused")
    @classmethod
    def _is_an_expression(cls, refused: str) -> str:
        return expression(refused)


class SecondJob(Fault):
    """The job is started a second time on the same directory, while the first one is alive."""

    word: ClassVar[str] = "second_job"
    is_from_outside: ClassVar[bool] = True
    rests_on: ClassVar[str | None] = "second_job"
    needs_own_ranks: ClassVar[bool] = True
    is_beside_others: ClassVar[bool] = False
    drawn_at: ClassVar[tuple[str, ...]] = ("step", "operation")
    decides_operation: ClassVar[bool] = True
    area: ClassVar[str | None] = "second job"
    second_job: Joining

    @model_validator(mode="after")
    def _holds_one_rank_up(self) -> SecondJob:
        if self.at.rank not in (None, self.second_job.rank) or self.at.once_published:
            raise ValueError(
                "`second_job` pauses the rank at its point: `at` must be a point of that rank"
            )
        if self.at.during not in (None, "evaluation"):
            raise ValueError(
                "`second_job` is refused because the first one has saved and will save again: of "
                "the periods only `evaluation` lies between saves"
            )
        if self.at.when == "after":
            raise ValueError("`second_job` pauses an operation: `when: after` is too late")
        return self

    def owes(self) -> Owed | None:
        return _ENDED

    def describe(self) -> str:
        return "a second job starts"

    def impossible(self, around: Surroundings) -> Iterator[tuple[Place, str]]:
        if 2 * around.ranks > around.most_ranks:
            text = f"two jobs of {around.ranks} ranks are more than {around.most_ranks}"
            yield (), f"{text}; possible: a world of at most {around.most_ranks // 2}"

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> Treatment:
        effects.record_fired(strike)
        effects.start_second_job(strike)
        return Treatment(kind="second_job")

    @property
    def second_host(self) -> str | None:
        return str(self.second_job.host)
