"""A write that takes half of its bytes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from harness.faults.base import OneRank, OperationFault


class ShortWrite(OperationFault):
    """A write takes only the first half of its bytes and says so."""

    word: ClassVar[str] = "short_write"
    short_write: OneRank

    @model_validator(mode="after")
    def _hits_a_write(self) -> ShortWrite:
        if self.at.operation != "write":
            raise ValueError("`short_write` needs `operation: write` in its point")
        return self
