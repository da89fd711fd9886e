"""A write takes only the first half of its bytes and says so; the rest is up to the caller.

It does not fire on a write that cannot be split: one byte, or one sector past the page cache.

What must survive: the bytes, which the caller writes in a second call.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from harness.faults.base import OneRank, OperationFault
from harness.faults.effects import Effects, PlannedStrike, Treatment


class ShortWrite(OperationFault):
    """A write takes only the first half of its bytes and says so."""

    word: ClassVar[str] = "short_write"
    area: ClassVar[str | None] = "storage"
    does: ClassVar[tuple[str, str]] = ("writes only half of a buffer", "")
    splits_write: ClassVar[bool] = True
    short_write: OneRank

    @model_validator(mode="after")
    def _hits_a_write(self) -> ShortWrite:
        if self.at.operation != "write":
            raise ValueError("`short_write` needs `operation: write` in its point")
        return self

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> Treatment:
        effects.record_fired(strike)
        return Treatment(kind="short_write")
