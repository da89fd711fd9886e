"""A hand that changes the directory while the job runs."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from harness.faults.actions import Action, action_of
from harness.faults.base import Fault


class ByHand(Fault):
    """A hand from outside changes the directory at a point, before the job does anything else."""

    word: ClassVar[str] = "by_hand"
    by_hand: Action

    @model_validator(mode="after")
    def _can_happen_to_a_live_job(self) -> ByHand:
        action = action_of(self.by_hand)
        if action in ("leftover", "relocate"):
            raise ValueError(f"`{action}` is for the time between two runs")
        return self
