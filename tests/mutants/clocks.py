"""A manager that takes the clock of each rank for the time."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path

_OLD_S = 600.0


class SweepsWhatLooksOld(SimpleManager):
    """After it has written, each rank deletes staging directories that are old by its own clock."""

    def _write_shards(self, staging: Path) -> None:
        super()._write_shards(staging)
        for left in self._dir.glob(simple_manager.STAGING.format(step="*")):
            if time.time() - left.stat().st_mtime > _OLD_S:
                shutil.rmtree(left)
