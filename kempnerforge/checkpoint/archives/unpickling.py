"""An unpickler that resolves only the names that its caller allows, and so builds nothing else.

Code without torch uses :mod:`format.inert` to read pickles as plain data; the names allowed in
``.metadata`` are listed there, for both.
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
    """Returns the value that a pickle describes.

    Args:
        data: The pickle.
        find: Resolves a name in it, given module and name, or raises.
        load: Resolves the id of an object outside of the pickle, or raises; None if ids are not
            allowed.

    Raises:
        Exception: Whatever ``find`` or ``load`` raised; a damaged pickle can raise almost anything.
    """
    return _Unpickler(data, find, load or _refuse).load()


def anything(module: str, name: str) -> Any:
    """Resolves any importable name, which lets a pickle run any code."""
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
