"""The unpickler of the package: it finds what its caller allows, and so builds nothing else.

Without torch, pickles are read as plain data by :mod:`format.inert`; what is allowed in
``.metadata`` is written there, for both.
"""

import io
import pickle
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any

__all__ = ["anything", "unpickle"]


def unpickle(
    data: bytes,
    find: Callable[[str, str], Any],
    *,
    load: Callable[[Any], Any] | None = None,
) -> Any:
    """The value that a pickle describes.

    Args:
        data: The pickle.
        find: Says what a name in it stands for, by module and name, or raises.
        load: Says what an id of something outside of the pickle stands for, or raises; where None
            there must be no such id.

    Raises:
        Exception: What ``find`` or ``load`` raised; or almost anything, of a damaged pickle.
    """
    return _Unpickler(data, find, load or _refuse).load()


def anything(module: str, name: str) -> Any:
    """Finds whatever can be imported, which lets a pickle run any code."""
    return reduce(getattr, name.split("."), import_module(module))


def _refuse(pid: Any) -> Any:
    raise pickle.UnpicklingError(f"it refers to {pid!r}, which is not in it")


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, data: bytes, find: Callable[[str, str], Any], load: Callable[[Any], Any]
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._find, self._load = find, load

    def find_class(self, module: str, name: str) -> Any:
        return self._find(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return self._load(pid)
