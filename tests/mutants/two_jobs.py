"""Managers that take the checkpoint directory for their own although another job writes there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.protocol.effects import Unlocked
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path


class TakesNoLock(CheckpointManager):
    """A start clears away what it takes for the leftovers of a dead run: the save of a live one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runtime = replace(self._runtime, access=Unlocked())


class LocksWhileItSaves(CheckpointManager):
    """The lock is given back after every save, so a job that starts between two of them gets it."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().save(*args, **kwargs)
        finally:
            self._runtime.access.let_go()
