"""The base classes of a scenario's parts and of a plan's parts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Place = tuple[str | int, ...]
"""Keys and list positions that lead from the top of a file to a value; () is the file."""


class Part(BaseModel):
    """Base of every part of a scenario: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Decided(BaseModel):
    """Base of every part of a plan: immutable, and written to disk as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")
