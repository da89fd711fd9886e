"""Storages that do something before an operation, or refuse it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.runtime.storage import LocalStorage


class Gates:
    """Calls something before an operation of a thread whose name begins so."""

    def __init__(
        self, thread: str, storage: LocalStorage | None = None, **before: Callable[..., object]
    ) -> None:
        self._thread, self._before = thread, before
        self._storage = storage or LocalStorage()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if name not in self._before:
            return found
        if not threading.current_thread().name.startswith(self._thread):
            return found

        def gated(*args: Any) -> Any:
            self._before[name](*args)
            return found(*args)

        return gated


class Refusing(LocalStorage):
    """Raises an error in place of each operation that :attr:`refuses` says so of.

    It gets the name of the operation and the names of files, without their directories.
    """

    def __init__(self, code: int, refuses: Callable[..., bool]) -> None:
        self.code = code
        self.refuses = refuses
        self.refused: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name not in vars(LocalStorage):
            return found

        def operation(*args: Any) -> Any:
            if self.refuses(name, *(arg.name for arg in args if isinstance(arg, Path))):
                self.refused.append(name)
                raise OSError(self.code, os.strerror(self.code), *map(str, args[:1]))
            return found(*args)

        return operation


class NoExchange(LocalStorage):
    """A file system that cannot swap two names."""

    def exchange(self, one: Path, other: Path) -> bool:
        return False
