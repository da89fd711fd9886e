"""Managers that believe the directory to be as they left it, while the job goes on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.harness import simple_manager
from tests.harness.simple_manager import REMOVED, SimpleManager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class PrunesFromMemory(SimpleManager):
    """What there is to delete is remembered since the start, and has to be there still."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = sorted(simple_manager._committed(self._dir), key=simple_manager._order)
        self._known = [simple_manager._step(path) for path in found]

    def _prune(self, newest: Path) -> None:
        self._known.append(simple_manager._step(newest))
        while len(self._known) > self._config.keep_last_n:
            step = self._known.pop(0)
            victim = self._dir / REMOVED.format(step=step)
            (self._dir / f"step_{step}").rename(victim)
            simple_manager._sync(self._dir)
            shutil.rmtree(victim)


class LeavesLatestToOthers(SimpleManager):
    """A `latest` that is not what this job made it is somebody's wish, and stays."""

    _mine: str | None = None

    def _publish(self, staging: Path, step: int) -> None:
        latest = self._dir / "latest"
        found = os.readlink(latest) if latest.is_symlink() else None
        super()._publish(staging, step)
        if self._mine is not None and found != self._mine:
            latest.unlink()
            if found is not None:
                latest.symlink_to(found)
        self._mine = f"step_{step}"
