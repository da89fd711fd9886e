"""What all parts of a scenario have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Base of every part of a scenario: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
