"""Where a fault strikes: an operation of a save or of the load, a training step, or a period."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.part import Part
from harness.words import LOADING, OPERATIONS, PERIODS, PHASES


class Point(Part):
    """Where a fault strikes: an operation of a save or of the load, a training step, or a period.

    An operation point has `save` (the n-th call of `save` in this run, from 1) and at least one of
    `phase`, `operation` and `path`; or it has `phase: load`, which belongs to no save; or it has
    `operation` or `path` without `save`, and counts through the whole run. A step point has only
    `step`: the instant after the rank has finished that training step and before it decides whether
    to save. A period point has `during`: the instant at which the rank enters that period of its
    life, of which only `evaluation` comes more than once (`nth`).
    """

    rank: int | None = Field(None, ge=0, description="whose operation; default: the rank struck")
    save: int | None = Field(None, ge=1)
    phase: Literal[PHASES] | None = None  # type: ignore[valid-type]
    operation: Literal[OPERATIONS] | None = None  # type: ignore[valid-type]
    path: str | None = Field(None, description="fnmatch pattern below the checkpoint directory")
    nth: int = Field(1, ge=1)
    when: Literal["before", "after"] = "before"
    step: int | None = Field(None, ge=1)
    during: Literal[PERIODS] | None = Field(  # type: ignore[valid-type]
        None, description="a period outside of steps and saves; strikes when the rank enters it"
    )
    once_published: bool = Field(
        default=False,
        description="step points: first wait until `latest` names the last save begun",
    )

    @property
    def is_operation(self) -> bool:
        """Whether it is before or after an operation."""
        return self.step is None and self.during is None

    @model_validator(mode="after")
    def _is_one_period(self) -> Point:
        if self.during is None:
            return self
        others = {"save", "phase", "operation", "path", "when", "step", "once_published"}
        if found := others & self.model_dump(exclude_defaults=True).keys():
            raise ValueError(f"a point is a period or has `{min(found)}`, not both")
        if self.nth > 1 and self.during != "evaluation":
            raise ValueError(f"a rank enters `{self.during}` once: leave `nth` out")
        return self

    @model_validator(mode="after")
    def _is_one_kind_of_point(self) -> Point:
        if self.during is not None:
            return self
        operation_fields = (self.save, self.phase, self.operation, self.path)
        if self.step is not None and any(field is not None for field in operation_fields):
            raise ValueError("a point is either a `step` or an operation of a `save`, not both")
        if self.phase == "load" and self.save is not None:
            raise ValueError("`phase: load` belongs to no save: leave `save` out")
        if self.phase == "load" and self.operation not in (None, *LOADING):
            raise ValueError(
                f"a load has no `{self.operation}` to strike: its operations are "
                f"{' and '.join(LOADING)}"
            )
        anywhere = self.phase is None and (self.operation or self.path)
        if self.step is None and self.save is None and self.phase != "load" and not anywhere:
            raise ValueError(
                "a point needs `step`, `during`, `phase: load`, `operation` or `path` through the "
                "whole run, or `save` with `phase`, `operation` or `path`"
            )
        if self.step is None and not any((self.phase, self.operation, self.path)):
            raise ValueError(
                "an operation point needs `phase`, `operation` or `path` beside `save`"
            )
        if self.once_published and self.step is None:
            raise ValueError("`once_published` belongs to a `step` point")
        return self
