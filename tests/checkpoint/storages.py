"""Storage that does something first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from kempnerforge.checkpoint.storage import LocalStorage


class Gates(LocalStorage):
    """Calls something before an operation of a thread whose name begins so."""

    def __init__(self, thread: str, **before: Callable[..., None]) -> None:
        self._thread, self._before = thread, before

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name not in self._before:
            return found
        if not threading.current_thread().name.startswith(self._thread):
            return found

        def gated(*args: Any) -> Any:
            self._before[name](*args)
            return found(*args)

        return gated
