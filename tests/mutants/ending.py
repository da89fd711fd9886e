"""Managers that lose or spoil something when the job ends in another way than by a kill."""

from __future__ import annotations

import atexit
import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kempnerforge.checkpoint.errors import CheckpointError
from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.runtime import background, sink
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path

_HANG_S = 60.0


class AbandonsAtExit(CheckpointManager):
    """The thread of a save is a daemon: the end of the interpreter drops the save in silence."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        background.threading = SimpleNamespace(Thread=_daemon)  # type: ignore[attr-defined, assignment]
        self._writes = threading.Event()
        write = sink._Cached._write

        def told(way: sink._Cached, view: memoryview) -> None:
            self._writes.set()
            write(way, view)

        sink._Cached._write = told  # type: ignore[method-assign, assignment]

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.wait()
        self._writes.clear()
        super().save(*args, **kwargs)
        # The write that the scenario delays has begun by then, so the exit falls into it.
        self._writes.wait(_HANG_S)


def _daemon(**kwargs: Any) -> threading.Thread:
    return threading.Thread(**{**kwargs, "daemon": True})


class AbandonsAtAnException(AbandonsAtExit):
    """The end of the interpreter waits for the thread of a save, but not after an exception."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        show = sys.excepthook
        atexit.register(self.wait)

        def forget(*error: Any) -> None:
            atexit.unregister(self.wait)
            show(*error)

        sys.excepthook = forget


class SavesWhatThereIs(CheckpointManager):
    """A rank that an exception ends leaves a checkpoint of its own, which no other rank shares."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._last = 0
        sys.excepthook = lambda *_: self._save_alone()

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        super().save(step, *args, **kwargs)
        self._last = step

    def _save_alone(self) -> None:
        step = self._last + 1
        alone = Path(self._config.given.dir) / f"step_{step}"
        alone.mkdir(exist_ok=True)
        (alone / "metadata.json").write_text(json.dumps({"step": step, "tokens_seen": 0}))


class GivesUpAfterTwo(CheckpointManager):
    """One failed save is taken for bad luck; after a second one in a row nothing is saved again."""

    _failed = 0

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._failed >= 2:
            raise RuntimeError("saving is switched off: it failed twice")
        try:
            super().save(*args, **kwargs)
        except CheckpointError:
            self._failed += 1
            raise
        self._failed = 0
