"""Reads pickles and torch archives without running anything that they contain."""

from __future__ import annotations

import collections
import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO

from harness.content import Content

METADATA = ".metadata"
"""The file of torch's DCP that names all others."""


class Inert:
    """Replaces every class and function that a pickle names: it only keeps attributes."""

    def __new__(cls, *_arguments: object, **_named: object) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_arguments: object, **_named: object) -> None:
        pass

    def __call__(self, *_arguments: object, **_named: object) -> Inert:
        return Inert()

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update({str(name): value for name, value in part.items()})

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _item: object) -> None:
        """Called for a list that the pickle fills; the items are never used."""

    def extend(self, _items: object) -> None:
        """Called for a list that the pickle fills; the items are never used."""

    def add(self, _item: object) -> None:
        """Called for a set that the pickle fills; the items are never used."""


class InertUnpickler(pickle.Unpickler):
    """An unpickler that finds no code at all."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        return type(name.rpartition(".")[2] or "Inert", (Inert,), {})

    def persistent_load(self, _pid: object) -> Any:
        return None


def read_pickle(file: BinaryIO) -> Any:
    """Returns the object in a pickle, made of plain containers and `Inert`. Raises ValueError."""
    try:
        return InertUnpickler(file).load()
    # A torn pickle can raise nearly anything: EOFError, IndexError, KeyError, UnicodeDecodeError.
    except Exception as error:
        raise ValueError(f"not a complete pickle ({type(error).__name__}: {error})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The contents of a file, or why it could not be read."""

    value: Any = None
    error: str | None = None


def read_json(content: Content) -> Reading:
    """Returns the value of a JSON file."""
    try:
        return Reading(value=json.loads(content.read()))
    except ValueError as error:
        return Reading(error=f"not JSON ({content.size} bytes: {error})")


def read_shards(content: Content) -> Reading:
    """Returns the files that a DCP `.metadata` names, and the minimum size of each."""
    if not content.size:
        return Reading(error="empty")
    try:
        metadata = read_pickle(content.open())
    except ValueError as error:
        return Reading(error=str(error))
    stored = getattr(metadata, "storage_data", None)
    if not isinstance(stored, dict):
        return Reading(error="names no stored data")
    ends: dict[str, int] = {}
    for info in stored.values():
        shard = getattr(info, "relative_path", None)
        offset, length = getattr(info, "offset", None), getattr(info, "length", None)
        if not (isinstance(shard, str) and isinstance(offset, int) and isinstance(length, int)):
            return Reading(error="has an entry without file, offset or length")
        ends[shard] = max(ends.get(shard, 0), offset + length)
    return Reading(value=ends)


def read_torch_file(content: Content) -> Reading:
    """Returns the object in a file of `torch.save`, without tensors; also reads plain pickles."""
    if not content.size:
        return Reading(error="empty")
    try:
        if content.read(0, 2) != b"PK":
            return Reading(value=read_pickle(content.open()))
        with zipfile.ZipFile(content.open()) as archive:
            members = archive.infolist()
            # The checksums are not checked: torch can be configured not to compute them.
            for member in members:
                if member.header_offset + member.compress_size > content.size:
                    return Reading(error=f"member {member.filename} is cut off")
            pickles = [one for one in members if one.filename.endswith("/data.pkl")]
            value = read_pickle(io.BytesIO(archive.read(pickles[0]))) if pickles else None
            return Reading(value=value)
    except (ValueError, zipfile.BadZipFile, OSError, EOFError) as error:
        return Reading(error=f"not a complete archive ({content.size} bytes: {error})")
