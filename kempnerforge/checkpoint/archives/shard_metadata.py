"""Reads the ``.metadata`` of a shard directory, without running what it contains, and checks it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from kempnerforge.checkpoint.archives.unpickling import anything, unpickle
from kempnerforge.checkpoint.collection import held_back
from kempnerforge.checkpoint.errors import (
    CorruptCheckpointError,
    UnsafeCheckpointError,
    of_read,
)
from kempnerforge.checkpoint.format.inert import ALLOWED_NAMES, PATHLIB

__all__ = ["check_metadata", "decode_metadata", "flat_paths", "is_ours", "rebuild_metadata"]


def is_ours(metadata: Metadata) -> bool:
    """Whether this package wrote it; DCP's own writer records its directory as well."""
    meta = metadata.storage_meta
    return meta is not None and meta.save_id is not None and meta.checkpoint_id is None


def _allowed(module: str, name: str) -> Any:
    if (module, name) in ALLOWED_NAMES:
        return _in_any_python(module, name)
    value = getattr(torch, name, None) if module == "torch" else None
    if isinstance(value, torch.dtype | torch.memory_format):
        return value
    raise UnsafeCheckpointError(f"it asks for {module}.{name}, which is not allowed")


def _in_any_python(module: str, name: str) -> Any:
    """As :func:`anything`; finds pathlib's classes under the names of every Python version."""
    return anything("pathlib" if module in PATHLIB else module, name)


def decode_metadata(data: bytes, *, where: str) -> Metadata:
    """Reads ``.metadata`` without running anything that it contains.

    Raises:
        UnsafeCheckpointError: It asks for a class that does not belong in metadata.
        CorruptCheckpointError: It is not metadata.
    """
    try:
        with held_back():
            found = unpickle(data, _allowed)
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{where}: refused: {error}", path=where) from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise CorruptCheckpointError(f"{where}: cannot be read: {error!r}", path=where) from error
    if not isinstance(found, Metadata) or not isinstance(found.storage_data, dict):
        raise CorruptCheckpointError(f"{where}: is not DCP metadata", path=where)
    return found


def rebuild_metadata(data: bytes) -> Any:
    """Unpickles ``.metadata`` without restrictions, which runs any code that it contains."""
    return unpickle(data, _in_any_python)


def check_metadata(directory: Path, metadata: Metadata, *, size_of: Callable[[Path], int]) -> None:
    """Checks that the shards named in the metadata exist and are large enough.

    Raises:
        CorruptCheckpointError: A file is missing, short or outside of ``directory``, or a tensor is
            not covered by its chunks.
        UnreadableCheckpointError: The size of a file cannot be determined at present.
    """
    ends: dict[str, int] = {}
    for info in metadata.storage_data.values():
        name = info.relative_path
        ends[name] = max(ends.get(name, 0), info.offset + info.length)
    for name, end in sorted(ends.items()):
        file = directory / name
        if Path(name).name != name:
            raise CorruptCheckpointError(f"{directory}: shard name {name!r} leaves the directory")
        try:
            size = size_of(file)
        except (OSError, MemoryError) as error:
            raise of_read(error, file, path=directory) from error
        if size < end:
            raise CorruptCheckpointError(f"{directory / name}: {size} bytes, needs {end}")
    for key, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            covered = sum(math.prod(chunk.sizes) for chunk in entry.chunks)
            if covered != math.prod(entry.size):
                raise CorruptCheckpointError(f"{directory}: the chunks of {key} do not cover it")


def flat_paths(metadata: Metadata) -> dict[str, tuple[str | int, ...]]:
    """Maps each flat key to the path of keys and indices that it was flattened from."""
    mappings = metadata.planner_data or {}
    return {
        key: tuple(mappings[key] if key in mappings else key.split("."))
        for key in metadata.state_dict_metadata
    }
