"""Managers whose saves in the background are not what the job believes them to be."""

from __future__ import annotations

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path
from kempnerforge.resilience.signal_handler import ShutdownHandler as ShutdownHandler


class NeverWaits(CheckpointManager):
    """E11: the call that waits asks another manager, which has nothing to wait for."""

    def wait(self) -> None:
        return


class DropsErrors(CheckpointManager):
    """E09: nobody looks at what became of a save in the background."""

    def _settle(self) -> BaseException | None:
        super()._settle()
        return None
