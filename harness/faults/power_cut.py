"""The power of the disk is cut: unsynced data is lost, and no rank does anything more.

{power_cut: {filesystem: ext4, journal: kept}, at: {save: 2, phase: publish, operation: rename}}

Fault model: at one instant nothing more reaches the disk. What the file system had not made durable
by then is gone, names and bytes, in all files and directories (`harness.run.disk`).

What must survive: everything that was synced, and whole checkpoints. Out of scope: torn blocks,
which none of these file systems leave (`harness.crash` explores them), and disks that lose what
they reported as durable.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from harness.faults.base import Fault
from harness.faults.effects import Effects, PlannedStrike
from harness.part import Part
from harness.words import FILE_SYSTEMS


class PowerCutting(Part):
    """The file system of the checkpoint directory, and what the cut takes from it.

    `journal: lost` leaves what the file system had made durable by itself or on request. `kept`
    also writes the journal, as a commit at that moment would: the names are on the disk as they
    were, but not the data behind them.
    """

    filesystem: Literal[FILE_SYSTEMS] = "ext4"  # type: ignore[valid-type]
    journal: Literal["lost", "kept"] = Field(
        "lost", description="whether the changes of names so far reach the disk"
    )

    @property
    def rank(self) -> Literal["all"]:
        """The power goes for every rank."""
        return "all"

    @model_validator(mode="after")
    def _has_such_a_journal(self) -> PowerCutting:
        if self.filesystem == "btrfs" and self.journal == "kept":
            raise ValueError("btrfs has no journal to keep: only `journal: lost` is possible")
        return self


class PowerCut(Fault):
    """The power goes: unsynced data is lost, and no rank does anything more."""

    word: ClassVar[str] = "power_cut"
    rests_on: ClassVar[str | None] = "power_cuts"
    needs_own_ranks: ClassVar[bool] = True
    needs_plain_directory: ClassVar[bool] = True
    area: ClassVar[str | None] = "power"
    ends_run: ClassVar[bool] = True
    power_cut: PowerCutting

    def describe(self) -> str:
        return "the power goes"

    def carry_out(self, strike: PlannedStrike, effects: Effects) -> None:
        effects.cut_power(self.power_cut.journal)
        effects.kill(strike)

    @property
    def is_deadly(self) -> bool:
        return True

    @property
    def disk(self) -> str | None:
        return str(self.power_cut.filesystem)
