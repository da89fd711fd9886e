"""Managers that delete the wrong things or leave things behind."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class DeletesUnderTheName(SimpleManager):
    """D03, L14: an old checkpoint is deleted file by file while it is still called `step_N`."""

    def _prune(self, newest: Path) -> None:
        committed = sorted(simple_manager._committed(self._dir), key=simple_manager._order)
        for path in committed[: -self._config.keep_last_n]:
            shutil.rmtree(path)


class KeepsEverything(SimpleManager):
    """C15: retention finds nothing to do, until the disk is full."""

    def _prune(self, newest: Path) -> None:
        return


class KeepsOneTooFew(SimpleManager):
    """C07: the count includes something that is no checkpoint, so one good one too many goes."""

    def _prune(self, newest: Path) -> None:
        committed = sorted(simple_manager._committed(self._dir), key=simple_manager._order)
        for path in committed[: 1 - self._config.keep_last_n]:
            victim = self._dir / simple_manager.REMOVED.format(step=simple_manager._step(path))
            path.rename(victim)
            shutil.rmtree(victim)


class LeavesLeftovers(SimpleManager):
    """D09: what a dead run left behind stays for ever."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        simple_manager._remove_leftovers = lambda directory: None
        super().__init__(*args, **kwargs)


class LeavesAProcess(SimpleManager):
    """An uploader is started with the save and outlives the job."""

    def _publish(self, staging: Path, step: int) -> None:
        super()._publish(staging, step)
        if not hasattr(self, "_uploader"):
            self._uploader = subprocess.Popen(["sleep", "600"])


class LeavesAThread(SimpleManager):
    """A thread that waits for work is never told that there will be none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        work = threading.Event()
        threading.Thread(target=work.wait, name="flusher", daemon=True).start()
