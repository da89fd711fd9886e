"""The job started once more on the same directory."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from harness.faults.base import Fault, OneRank, expression
from harness.words import HOSTS


class Joining(OneRank):
    """Which rank's operation lasts until the second job is over, and how that has to end."""

    refused: str = Field(
        min_length=1, description="a regular expression that the error of the second job has to fit"
    )
    host: Literal[HOSTS] = Field(  # type: ignore[valid-type]
        "first", description="where it is started; `other` shares no lock and no cache"
    )

    @field_validator("refused")
    @classmethod
    def _is_an_expression(cls, refused: str) -> str:
        return expression(refused)


class SecondJob(Fault):
    """The job is started once more on the same directory, while the first one is alive."""

    word: ClassVar[str] = "second_job"
    second_job: Joining

    @model_validator(mode="after")
    def _holds_one_rank_up(self) -> SecondJob:
        if self.at.rank not in (None, self.second_job.rank) or self.at.once_published:
            raise ValueError("`second_job` holds the rank at the point up: `at` is a point of it")
        if self.at.when == "after":
            raise ValueError("`second_job` holds an operation up: `when: after` is too late")
        return self
