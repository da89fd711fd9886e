"""Managers that come through the death of some ranks, and not through that of others."""

from __future__ import annotations

import shutil
import signal
import threading
from types import FrameType
from typing import Any

import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import STAGING, SimpleManager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path

_LOCK = ".locked"


class NeedsASurvivor(SimpleManager):
    """A file says that a save is under way; any rank removes it, so that all must die for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if (self._dir / _LOCK).exists():
            raise RuntimeError(f"{self._dir} is locked")
        dist.barrier()

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        if dist.get_rank() == 0:
            (self._dir / _LOCK).touch()
        try:
            super().save(step, *args, **kwargs)
        finally:
            (self._dir / _LOCK).unlink(missing_ok=True)


class PublishesWithoutThePeer(SimpleManager):
    """Whoever is left when a peer dies in a save publishes what there is."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        staging = self._dir / STAGING.format(step=step)
        try:
            super().save(step, *args, **kwargs)
        except RuntimeError:
            if dist.get_rank() == 0 and staging.exists():
                self._seal(staging, step, 0, None, {})
                self._publish(staging, step)
            raise


class ClearsUpAfterAPeer(SimpleManager):
    """A save in which a peer dies has failed, so its checkpoint goes, published or not."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        try:
            super().save(step, *args, **kwargs)
        except RuntimeError:
            if dist.get_rank() == 0:
                shutil.rmtree(self._dir / f"step_{step}", ignore_errors=True)
            raise


class TakesAStopForAnEnd(SimpleManager):
    """A process that was stopped and goes on is fenced off: nothing that it saves counts."""

    _fenced = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCONT, self._fence)

    def _fence(self, _number: int, _frame: FrameType | None) -> None:
        self._fenced = True

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        simple_manager._agree(self._refuse_if_fenced)
        super().save(step, *args, **kwargs)

    def _refuse_if_fenced(self) -> None:
        if self._fenced:
            raise RuntimeError("this process was stopped, so it may not write any more")
