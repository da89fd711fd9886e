"""Managers whose saves in the background are not what the job believes them to be."""

from __future__ import annotations

from typing import Any

from kempnerforge.checkpoint import sink
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


class TakesDirectForDurable(CheckpointManager):
    """L35: what was written past the page cache is not synced, as if the disk had no cache."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sink.FileSink.close = _close_or_trust  # type: ignore[method-assign]


_close = sink.FileSink.close


def _close_or_trust(self: sink.FileSink) -> None:
    if isinstance(self._way, sink._Direct):
        self._way.finish()
        self.abandon()
    else:
        _close(self)
