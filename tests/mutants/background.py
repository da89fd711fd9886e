"""Managers whose saves in the background are not what the job believes them to be."""

from __future__ import annotations

import threading
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.protocol.save_messages import Published
from kempnerforge.checkpoint.runtime import sink
from kempnerforge.checkpoint.runtime.driver import ProtocolRun
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path
from kempnerforge.resilience.signal_handler import ShutdownHandler as ShutdownHandler

_TICK_S = 0.02


class NeverWaits(CheckpointManager):
    """E11: the call that waits asks another manager, which has nothing to wait for.

    A save goes on when the next one needs it, or when the loop is over: no flush is so quick that
    nobody has to wait.
    """

    _needed = threading.Event()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        end = dist.destroy_process_group

        def settle_and_end(*args: Any) -> None:
            self._settle()
            end(*args)

        dist.destroy_process_group = settle_and_end  # type: ignore[assignment]

    def wait(self) -> None:
        return

    def _job(self, *args: Any) -> Any:
        self._needed = threading.Event()
        return _Held(super()._job(*args), self._needed)

    def _settle(self) -> BaseException | None:
        self._needed.set()
        return super()._settle()


class _Held:
    """A save that somebody has to ask for."""

    def __init__(self, job: ProtocolRun[Published], needed: threading.Event) -> None:
        self._job, self._needed = job, needed

    def run(self) -> Published:
        # A loop that raises asks for nothing more, and the interpreter waits for this thread.
        while not self._needed.wait(_TICK_S) and threading.main_thread().is_alive():
            pass
        return self._job.run()


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
