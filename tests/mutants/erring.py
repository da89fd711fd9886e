"""Managers that do the wrong thing for one error of the storage, or for one that is only slow."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kempnerforge.checkpoint.bulk import plans
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.protocol.effects import one_by_one
from kempnerforge.checkpoint.runtime import sink, storage
from kempnerforge.checkpoint.runtime.stale import RetryingStorage
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path

_PATIENCE = 3
_TOO_SLOW_S = 2.5


class _Manager(CheckpointManager):
    """Stands on a storage of its own."""

    STORAGE: type[LocalStorage] = LocalStorage

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runtime = replace(self._runtime, storage=RetryingStorage(self.STORAGE()))


class _GivesUp(LocalStorage):
    def __init__(self) -> None:
        self._failures = 0

    def write(self, path: Path, data: bytes) -> FileRecord:
        while True:
            try:
                return super().write(path, data)
            except OSError:
                self._failures += 1
                if self._failures >= _PATIENCE:
                    return FileRecord.of(data)


class GivesUpTheDescription(_Manager):
    """A file that cannot be written is tried again; after three errors the save does without."""

    STORAGE = _GivesUp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The manifest last: without one there is no checkpoint, and so none that is not whole.
        self._runtime = replace(self._runtime, at_once=one_by_one)


class _Moves(LocalStorage):
    def rename(self, source: Path, target: Path) -> None:
        if source.is_symlink():
            super().rename(source, target)
        else:
            shutil.move(source, target)


class CopiesWhatItCannotRename(_Manager):
    """`shutil.move`: where a rename is refused, file after file is copied under the new name."""

    STORAGE = _Moves


class _Deletes(LocalStorage):
    def rename(self, source: Path, target: Path) -> None:
        try:
            super().rename(source, target)
        except PermissionError:
            shutil.rmtree(source)


class DeletesWhatItCannotRename(_Manager):
    """An old checkpoint that cannot be renamed away is deleted under its own name."""

    STORAGE = _Deletes


class IgnoresFailedSyncs(CheckpointManager):
    """An fsync that fails is nobody's business: the data is on its way, after all."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = {**vars(os), "fsync": _try_to_sync}
        for module in (sink, storage):
            module.os = SimpleNamespace(**names)  # type: ignore[attr-defined]


def _try_to_sync(descriptor: int) -> None:
    with suppress(OSError):
        os.fsync(descriptor)


class _DeletesFirst(LocalStorage):
    def exchange(self, one: Path, other: Path) -> bool:
        if not super().exchange(one, other):
            shutil.rmtree(other)
            one.rename(other)
        return True


class DeletesWhereItCannotSwap(_Manager):
    """Where two names cannot be swapped the old version goes before the new one comes."""

    STORAGE = _DeletesFirst


class TakesStaleForFailed(CheckpointManager):
    """A stale file handle is an error as any other."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runtime = replace(self._runtime, storage=LocalStorage())
        plans.again_if_stale = _once  # type: ignore[attr-defined, assignment]


def _once(call: Callable[[], Any], *_: object) -> Any:
    return call()


class TakesSlowForBroken(CheckpointManager):
    """A write that takes almost three seconds shows a disk that is about to fail."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        write = sink._Cached._write

        def timed(way: sink._Cached, view: memoryview) -> None:
            began = time.monotonic()
            write(way, view)
            if time.monotonic() - began > _TOO_SLOW_S:
                raise OSError("the disk is too slow")

        sink._Cached._write = timed  # type: ignore[method-assign, assignment]


class WaitsForEver(CheckpointManager):
    """Its deadline is a year."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        config.commit_timeout_s = 365 * 86400.0
        super().__init__(config, *args, **kwargs)


class _UndoesWhatFailed(LocalStorage):
    def rename(self, source: Path, target: Path) -> None:
        try:
            super().rename(source, target)
        except FileNotFoundError:
            shutil.rmtree(target, ignore_errors=True)
            raise


class ClearsWhatItCouldNotName(_Manager):
    """A rename that is answered ENOENT is taken for not done, and its target is cleared away."""

    STORAGE = _UndoesWhatFailed
