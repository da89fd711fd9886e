"""What a power cut in a scenario says: on which file system it falls, and what the journal keeps.

{power_cut: {filesystem: ext4, journal: kept}, at: {save: 2, phase: publish, operation: rename}}
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from harness.faults.base import Fault
from harness.part import Part
from harness.words import FILE_SYSTEMS


class PowerCutting(Part):
    """The file system that the checkpoint directory lies on, and what the cut takes of it.

    `journal: lost` leaves what the file system had made durable by itself or because it was asked
    to. `kept` also writes the journal, as a commit in that moment would have: names are on the disk
    as they were, and the data behind them is not.
    """

    filesystem: Literal[FILE_SYSTEMS] = "ext4"  # type: ignore[valid-type]
    journal: Literal["lost", "kept"] = Field(
        "lost", description="whether the changes of names so far reach the disk"
    )

    @property
    def rank(self) -> Literal["all"]:
        """Power goes for every rank."""
        return "all"

    @model_validator(mode="after")
    def _has_such_a_journal(self) -> PowerCutting:
        if self.filesystem == "btrfs" and self.journal == "kept":
            raise ValueError("btrfs has no journal that could be kept: `journal: lost` alone")
        return self


class PowerCut(Fault):
    """The power goes: what was not synced is lost, and no rank does anything more."""

    word: ClassVar[str] = "power_cut"
    power_cut: PowerCutting
