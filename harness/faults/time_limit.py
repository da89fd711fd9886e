"""SLURM's time limit."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from harness.faults.base import Fault
from harness.part import Part


class Expiring(Part):
    """Whose time is over: that of the job."""

    rank: Literal["all"] = "all"


class TimeLimit(Fault):
    """SLURM's time limit comes near: its signal reaches every rank, and it starts the job again."""

    word: ClassVar[str] = "time_limit"
    time_limit: Expiring

    @model_validator(mode="after")
    def _comes_after_a_step(self) -> TimeLimit:
        if self.at.step is None or self.at.once_published:
            raise ValueError("`time_limit` comes after a training step: its point has `step` alone")
        return self
