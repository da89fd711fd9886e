"""Storage that confirms, before each visible change, that this job still has the directory."""

from collections.abc import Callable
from typing import Any, cast

from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = ["guarded"]

# The operations that publish, replace or delete. The others only create hidden files.
_CHANGES = frozenset({"rename", "exchange", "make_link", "unlink", "remove_tree"})


def guarded(storage: Storage, confirm: Callable[[], object]) -> Storage:
    """Wraps a storage so that ``confirm`` is called before every change that others can see.

    If it raises, the change is not made.
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
