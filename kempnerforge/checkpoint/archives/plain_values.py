"""Reads the common output of ``torch.save`` fast: containers, numbers, strings, tensors.

``torch.load(weights_only=True)`` interprets a pickle in Python, at 2 us per number; the state of
one generator has more than a thousand. This module uses Python's own unpickler, restricted to three
names: the dict and the tensor that torch writes, and its storage types. Each is replaced by a
stand-in that can only be called as intended and cannot be altered. So a file can create containers,
numbers, strings, and tensors within its own bytes, and nothing else.

Anything else, harmless or not, is left to ``torch.load``, which also explains what is wrong with
it.
"""

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from kempnerforge.checkpoint.archives.unpickling import unpickle
from kempnerforge.checkpoint.errors import CorruptCheckpointError, UnsafeCheckpointError

__all__ = ["decode_plain", "encode_plain", "read_plain_values"]

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_PERSISTENT_ID_PARTS = 5
_REBUILD_PARTS = 6


class _Unusual(Exception):
    """The data does not have the common form."""


def read_plain_values(data: bytes) -> tuple[Any] | None:
    """Reads the output of ``torch.save``, into a one-tuple; None if it lacks the common form.

    Never raises because of the data, and runs nothing that it contains.
    """
    try:
        archive: Any = torch._C.PyTorchFileReader(io.BytesIO(data))  # checks every record's crc32
        if archive.get_record("byteorder").decode() != sys.byteorder:
            return None
        pickled = archive.get_record("data.pkl")
        return (unpickle(pickled, _find, load=_Storages(archive).load),)
    except Exception:  # noqa: BLE001  # torch.load raises the proper error
        return None


class _Inert:
    """An object that a pickle cannot alter, although it may try."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise _Unusual


class _Call(_Inert):
    """Stands for a function that the pickle may call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class _StorageType(_Inert):
    """Stands for a class of storages, which is only ever named."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Stored(_Inert):
    """Stands for a storage in the archive."""

    __slots__ = ("values",)

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values


def _new_dict(*nothing: object) -> OrderedDict[Any, Any]:
    if nothing:
        raise _Unusual
    return OrderedDict()


def _rebuild_tensor(*parts: Any) -> torch.Tensor:
    if len(parts) != _REBUILD_PARTS:
        raise _Unusual
    stored, offset, sizes, strides, requires_grad, hooks = parts
    if type(stored) is not _Stored or requires_grad or hooks:
        raise _Unusual
    return stored.values.as_strided(sizes, strides, offset)


_NAMES: dict[tuple[str, str], _Inert] = {
    ("collections", "OrderedDict"): _Call(_new_dict),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_rebuild_tensor),
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


def _find(module: str, name: str) -> _Inert:
    if (module, name) not in _NAMES:
        raise _Unusual
    return _NAMES[module, name]


class _Storages:
    """The storages in an archive, each of which is read once."""

    def __init__(self, archive: Any) -> None:
        self._archive = archive
        self._read: dict[str, _Stored] = {}

    def load(self, pid: Any) -> _Stored:
        if type(pid) is not tuple or len(pid) != _PERSISTENT_ID_PARTS or pid[0] != "storage":
            raise _Unusual
        _, kind, key, _, _ = pid
        if type(kind) is not _StorageType or type(key) is not str:
            raise _Unusual
        if key not in self._read:
            raw = bytearray(self._archive.get_record(f"data/{key}"))
            self._read[key] = _Stored(torch.frombuffer(raw, dtype=kind.dtype))
        return self._read[key]


def _numpy_rebuilders() -> dict[str, Any]:
    """Returns this NumPy's two functions that pickled arrays and scalars call."""
    return {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}


# The functions and classes in pickled NumPy arrays and scalars, under every name that NumPy 1 and 2
# use. Checkpoints of other programs hold the state of NumPy's generator in this form.
_NUMPY_GLOBALS: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefdFD"),
    *(
        (function, f"{module}.multiarray.{name}")
        for name, function in _numpy_rebuilders().items()
        for module in ("numpy.core", "numpy._core")
    ),
]


def encode_plain(value: Any, *, what: str) -> bytes:
    """Serialises a value, and checks that it can be read back without unpickling objects.

    Raises:
        TypeError: ``value`` holds an object that a load would refuse.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    data = buffer.getvalue()
    try:
        decode_plain(data, where=what)
    except UnsafeCheckpointError as error:
        raise TypeError(
            f"{what} holds an object that loading will not rebuild; store numbers, strings, "
            f"lists, dicts and tensors instead ({error})"
        ) from error
    return data


def decode_plain(data: bytes, *, where: str) -> Any:
    """Reads the output of :func:`encode_plain` or plain ``torch.save``, with tensors on the CPU.

    Raises:
        UnsafeCheckpointError: The data asks for a class or a function that is not allowed.
        CorruptCheckpointError: The data is not such a file.
    """
    plain = read_plain_values(data)
    if plain is not None:
        return plain[0]
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(
            f"{where}: refused to rebuild objects from it: {_reason(error)}", path=where
        ) from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise CorruptCheckpointError(f"{where}: cannot be read: {error}", path=where) from error


def _reason(error: Exception) -> str:
    """Returns the part of torch's long message that names what was asked for."""
    for line in str(error).splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip()
    return str(error).splitlines()[0]
