"""Storage for who has to see, before each change, that the directory is still its own."""

from collections.abc import Callable
from typing import Any, cast

from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = ["guarded"]

# What publishes, replaces or deletes. The rest makes hidden files that nobody else has.
_CHANGES = frozenset({"rename", "exchange", "make_link", "unlink", "remove_tree"})


def guarded(storage: Storage, confirm: Callable[[], object]) -> Storage:
    """The same storage; ``confirm`` is called before every change of what others see.

    What it raises keeps the change from being made.
    """
    return cast("Storage", _Guarded(storage, confirm))


class _Guarded:
    def __init__(self, storage: Storage, confirm: Callable[[], object]) -> None:
        self._storage = storage
        self._confirm = confirm

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if name in _CHANGES:
            self._confirm()
        return found
