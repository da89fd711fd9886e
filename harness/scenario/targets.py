"""What a fault hits and how hard: the settings that stand beside the word of a fault."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from harness.scenario.part import Part
from harness.scenario.words import ERRORS, EXCEPTIONS, HOSTS

AnyRank = int | Literal["all"]


def expression(text: str) -> str:
    """A regular expression, checked."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


class Target(Part):
    """Which rank a fault hits."""

    rank: AnyRank = "all"


class OneRank(Part):
    """The one rank whose operation a fault hits."""

    rank: int


class Stopping(Target):
    """Which rank stands still, and for how long."""

    seconds: float = Field(gt=0)


class Terminating(Target):
    """Which rank is asked to end, and how long it may take before it is killed."""

    grace_s: float | None = Field(
        None, gt=0, description="SIGKILL for those that are alive then; default: none follows"
    )


class Until(Part):
    """When an error is over: as the rank begins a save, or as it has finished a step."""

    save: int | None = Field(None, ge=2, description="the n-th call of `save` in this run")
    step: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _is_one_moment(self) -> Until:
        if (self.save is None) == (self.step is None):
            raise ValueError("`until` names one moment: a `save` or a `step`")
        return self


class Failing(OneRank):
    """What the operation answers instead of being carried out, how often or how long."""

    error: Literal[ERRORS]  # type: ignore[valid-type]
    times: Annotated[int, Field(ge=1)] | Literal["always"] = 1
    until: Until | None = Field(None, description="the error lasts until then, and is healed")

    @model_validator(mode="after")
    def _ends_in_one_way(self) -> Failing:
        if self.until is not None and "times" in self.model_fields_set:
            raise ValueError("an error ends after some `times` or lasts `until` a moment, not both")
        return self


class Expiring(Part):
    """Whose time is over: that of the job."""

    rank: Literal["all"] = "all"


class Raising(OneRank):
    """In whose training loop what is raised."""

    error: Literal[EXCEPTIONS] = "RuntimeError"  # type: ignore[valid-type]


class Pausing(OneRank):
    """How long the operation takes."""

    seconds: float = Field(gt=0)


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


class Cutting(Part):
    """Whose cable is pulled, and for how long."""

    node: int = Field(1, ge=0, le=1)
    seconds: float | None = Field(None, gt=0, description="default: it is never put back")


class Slowing(Part):
    """Whose link carries less from then on."""

    node: int = Field(1, ge=0, le=1)
    kbit_s: int = Field(ge=64)
