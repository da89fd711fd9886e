"""Storage that answers an error."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from harness.faults.base import OneRank, OperationFault
from harness.part import Part
from harness.words import ERRORS


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


class Fail(OperationFault):
    """The storage answers an error: once, several times, or from then on."""

    word: ClassVar[str] = "fail"
    fail: Failing
