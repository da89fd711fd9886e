"""Where a fault strikes: an operation of a save or of the load, or a training step."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from harness.part import Part
from harness.words import LOADING, OPERATIONS, PHASES


class Point(Part):
    """Where a fault strikes: an operation of a save or of the load, or a training step.

    An operation point has `save` (the n-th call of `save` in this run, from 1) and at least one of
    `phase`, `operation` and `path`; or it has `phase: load`, which belongs to no save; or it has
    `operation` or `path` without `save`, and counts through the whole run. A step point has only
    `step`: the instant after the rank has finished that training step and before it decides whether
    to save.
    """

    rank: int | None = Field(None, ge=0, description="whose operation; default: the rank struck")
    save: int | None = Field(None, ge=1)
    phase: Literal[PHASES] | None = None  # type: ignore[valid-type]
    operation: Literal[OPERATIONS] | None = None  # type: ignore[valid-type]
    path: str | None = Field(None, description="fnmatch pattern below the checkpoint directory")
    nth: int = Field(1, ge=1)
    when: Literal["before", "after"] = "before"
    step: int | None = Field(None, ge=1)
    once_published: bool = Field(
        default=False,
        description="step points: first wait until `latest` names the last save begun",
    )

    @model_validator(mode="after")
    def _is_one_kind_of_point(self) -> Point:
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
                "a point needs `step`, `phase: load`, `operation` or `path` through the whole run, "
                "or `save` with `phase`, `operation` or `path`"
            )
        if self.step is None and not any((self.phase, self.operation, self.path)):
            raise ValueError(
                "an operation point needs `phase`, `operation` or `path` beside `save`"
            )
        if self.once_published and self.step is None:
            raise ValueError("`once_published` belongs to a `step` point")
        return self
