"""Reads what the files of a checkpoint hold: every tensor and number, by name.

A tensor in a file of torch's DCP has the name that `.metadata` gives it. In a file of `torch.save`
a value is named by the keys that lead to it. No code in a file is run. What cannot be read is left
out: tensors that are compressed, that are views with gaps, or whose elements torch stores by a type
that is unknown here.
"""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, BinaryIO, NamedTuple

from harness.content import Content, tensor_digest
from harness.layouts.archive import METADATA, InertUnpickler, read_pickle

_ELEMENT_BYTES = {
    "DoubleStorage": 8,
    "LongStorage": 8,
    "FloatStorage": 4,
    "IntStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "ShortStorage": 2,
    "ByteStorage": 1,
    "CharStorage": 1,
    "BoolStorage": 1,
    "UntypedStorage": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor or a number in a checkpoint.

    `text` is the digest of a tensor's bytes, or a number as `float.hex()`. `place` is equal for the
    same piece of the same tensor in two checkpoints. `is_plain` is true for numbers and for tensors
    whose elements are all alike, which say nothing about where they are from.
    """

    name: str
    place: str
    text: str
    is_tensor: bool
    is_plain: bool


def values_of(files: Mapping[str, Content]) -> Iterator[Value]:
    """Yields the values in a checkpoint, whose files are given by their paths in it."""
    for path, content in files.items():
        folder, _, name = path.rpartition("/")
        if name == METADATA:
            for entry in content.fact("entries", _entries):
                shard = posixpath.normpath(posixpath.join(folder, entry.path))
                if shard in files:
                    yield from _shard_values(files[shard], entry, folder)
        elif name.endswith((".pt", ".pth")):
            for value in content.fact("values", _torch_values):
                yield replace(value, place=f"{path} {value.place}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """Where one value lies, by `.metadata`."""

    name: str
    number: object
    path: str
    offset: int
    length: int


def _entries(content: Content) -> tuple[_Entry, ...]:
    try:
        stored = getattr(read_pickle(content.open()), "storage_data", None)
    except ValueError:
        return ()
    return tuple(_listed(stored)) if isinstance(stored, dict) else ()


def _listed(stored: Mapping[Any, Any]) -> Iterator[_Entry]:
    for index, info in stored.items():
        name, path = getattr(index, "fqn", None), getattr(info, "relative_path", None)
        offset, length = getattr(info, "offset", None), getattr(info, "length", None)
        if not (isinstance(name, str) and isinstance(path, str)):
            continue
        if isinstance(offset, int) and isinstance(length, int):
            number = getattr(index, "index", None)
            yield _Entry(name=name, number=number, path=path, offset=offset, length=length)


def _shard_values(content: Content, entry: _Entry, folder: str) -> Iterator[Value]:
    def read(whole: Content) -> tuple[Value, ...]:
        data = whole.read(entry.offset, entry.length)
        return tuple(_archive_values(io.BytesIO(data), entry.name))

    for value in content.fact(f"{entry.name} {entry.offset} {entry.length}", read):
        yield replace(value, place=f"{folder} {entry.number} {value.place}")


def _torch_values(content: Content) -> tuple[Value, ...]:
    return tuple(_archive_values(content.open(), ""))


def _archive_values(file: BinaryIO, name: str) -> Iterator[Value]:
    """Yields the values in one archive of torch; none if it is something else."""
    try:
        with zipfile.ZipFile(file) as archive:
            found = [one for one in archive.namelist() if one.endswith("/data.pkl")]
            if found:
                root = found[0].removesuffix("data.pkl")
                held = _ValueUnpickler(io.BytesIO(archive.read(found[0]))).load()
                yield from _walk(held, name, lambda key: archive.read(f"{root}data/{key}"))
    # What cannot be read is not judged; a torn pickle can raise nearly anything.
    except Exception:  # noqa: BLE001
        return


def _walk(held: Any, name: str, read: Callable[[str], bytes]) -> Iterator[Value]:
    if isinstance(held, _Tensor):
        data = held.bytes(read)
        if data:
            size = held.storage.width
            yield Value(
                name=name,
                place=f"{name} {held.storage.kind} {held.shape}",
                text=tensor_digest(data),
                is_tensor=True,
                is_plain=data == data[:size] * (len(data) // size),
            )
    elif isinstance(held, int | float) and not isinstance(held, bool):
        yield _number(name, held)
    elif isinstance(held, dict):
        for key, value in held.items():
            yield from _walk(value, f"{name}.{key}".lstrip("."), read)
    elif isinstance(held, list | tuple):
        for key, value in enumerate(held):
            # Thousands of numbers are the state of a generator.
            if not isinstance(value, int | float):
                yield from _walk(value, f"{name}.{key}".lstrip("."), read)


def _number(name: str, value: float) -> Value:
    try:
        text = float(value).hex()
    except OverflowError:
        text = str(value)
    return Value(name=name, place=name, text=text, is_tensor=False, is_plain=True)


class _Storage(NamedTuple):
    """A storage of an archive: its key there, torch's name of its type, the size of an element."""

    key: str
    kind: str
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensor:
    """A tensor of a pickle: its part of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def bytes(self, read: Callable[[str], bytes]) -> bytes:
        """Returns its elements in their order; none if they do not lie so."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size not in (0, 1) and stride != expected:
                return b""
            expected *= size
        width = self.storage.width
        start = self.offset * width
        return read(self.storage.key)[start : start + prod(self.shape) * width]


def _rebuild_tensor(
    storage: _Storage | None, offset: int, shape: Any, strides: Any, *_rest: Any
) -> _Tensor | None:
    if storage is None:
        return None
    return _Tensor(storage=storage, offset=offset, shape=tuple(shape), strides=tuple(strides))


def _rebuild_parameter(tensor: Any, *_rest: Any) -> Any:
    return tensor


class _ValueUnpickler(InertUnpickler):
    """Rebuilds tensors as parts of storages, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _rebuild_parameter
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage | None:
        if not isinstance(pid, tuple) or len(pid) < 3 or pid[0] != "storage":
            return None
        kind = getattr(pid[1], "__name__", "")
        width = _ELEMENT_BYTES.get(kind)
        return None if width is None else _Storage(str(pid[2]), kind, width)
