"""Managers that take a mounted directory for a disk of their own: each undoes one precaution.

What each undoes is looked up by name, so that a manager which has no such precaution is wrong as it
stands.
"""

from __future__ import annotations

import fcntl
import importlib
import os
from dataclasses import replace
from typing import Any

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path


def _undo(module: str, path: str, replacement: Any) -> None:
    """Put something in the place of what a module of the package has under this name."""
    try:
        owner: Any = importlib.import_module(f"kempnerforge.checkpoint.{module}")
    except ModuleNotFoundError:
        return
    *owners, name = path.split(".")
    for one in owners:
        owner = getattr(owner, one, None)
    if hasattr(owner, name):
        setattr(owner, name, replacement)


class TrustsFlock(CheckpointManager):
    """A lock that was had keeps everybody out, whatever the directory is mounted from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _undo("runtime.lock", "_is_enough", lambda *_, **__: True)
        super().__init__(*args, **kwargs)


class TakesTheSwapForDone(CheckpointManager):
    """`latest` was replaced without an error, so it names the new checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _undo("protocol.pointer", "Pointer._require", lambda *_: None)
        super().__init__(*args, **kwargs)


class _AnyIdentity:
    """Whatever has the name is the directory."""

    def confirm(self, _: Any) -> bool:
        return False

    def require_same(self) -> None:
        return

    def note(self, *_: Any) -> None:
        return


class TakesTheNameForTheDirectory(CheckpointManager):
    """A directory of the configured name is the checkpoint directory, and is made if it is gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runtime = replace(self._runtime, identity=_AnyIdentity())


def _clear_the_flag(file: Any) -> int:
    flags = fcntl.fcntl(file._fd, fcntl.F_GETFL)
    fcntl.fcntl(file._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return os.lseek(file._fd, 0, os.SEEK_CUR)


class KeepsTheDirectFile(CheckpointManager):
    """The end of a file is written through the descriptor that was opened with O_DIRECT."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _undo("runtime.sink", "_File.reopen", _clear_the_flag)
        super().__init__(*args, **kwargs)
