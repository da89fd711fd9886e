"""The contents of a checkpoint's shards, as ``.metadata`` describes them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.errors import CorruptCheckpointError, of_read
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.inert import Name, Stub, read_inert
from kempnerforge.checkpoint.protocol.catalog import plain_stages
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = ["Contents", "Tensor", "read_contents"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor, over all ranks."""

    dtype: str
    """Name of the dtype, such as ``float32``."""
    shape: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Contents:
    """The contents of the shards of all stages."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    """Names of the entries that are not tensors."""
    save_ids: set[str] = field(default_factory=set)
    """Saves that the shards belong to; empty if another program wrote them."""
    shard_ends: dict[str, int] = field(default_factory=dict)
    """Minimum size in bytes of each shard file, by path relative to the checkpoint."""


def read_contents(checkpoint: Path, storage: Storage) -> Contents:
    """Reads every stage's ``.metadata``.

    Raises:
        CorruptCheckpointError: A file is missing or is not metadata.
        UnreadableCheckpointError: A file cannot be read at present.
        OSError: A directory cannot be read.
        UnsafeCheckpointError: A file asks for something that a load would refuse.
    """
    contents = Contents()
    stages = plain_stages(checkpoint, storage)
    if stages is None:
        raise CorruptCheckpointError(f"{checkpoint}: {layout.SHARD_METADATA} is missing")
    for prefix in [f"{layout.format_stage(stage)}/" for stage in stages] or [""]:
        where = checkpoint / prefix / layout.SHARD_METADATA
        try:
            data = storage.read(where)
        except OSError as error:
            raise of_read(error, where, path=checkpoint) from error
        try:
            _add(contents, prefix, read_inert(data, where=str(where)))
        except (ValueError, TypeError, AttributeError) as error:
            raise CorruptCheckpointError(f"{where}: is not DCP metadata: {error}") from error
    return contents


def _add(contents: Contents, prefix: str, metadata: Any) -> None:
    if not isinstance(metadata, Stub) or metadata.of.name != "Metadata":
        raise ValueError("it describes another object")
    for name, entry in _mapping(metadata.field("state_dict_metadata")).items():
        if entry.of.name == "TensorStorageMetadata":
            contents.tensors[_text(name)] = _tensor(_text(name), entry)
        else:
            contents.values.add(_text(name))
    for info in _mapping(metadata.field("storage_data")).values():
        file = prefix + _shard_name(info.field("relative_path"))
        end = _count(info.field("offset")) + _count(info.field("length"))
        contents.shard_ends[file] = max(end, contents.shard_ends.get(file, 0))
    meta = metadata.field("storage_meta")
    if isinstance(meta, Stub) and isinstance(meta.field("save_id"), str):
        contents.save_ids.add(meta.field("save_id"))


def _tensor(name: str, entry: Stub) -> Tensor:
    shape = _sizes(entry.field("size"))
    covered = sum(math.prod(_sizes(chunk.field("sizes"))) for chunk in entry.field("chunks"))
    if covered != math.prod(shape):
        raise ValueError(f"the chunks of {name} do not cover it")
    properties = entry.field("properties").state
    dtype = properties.get("dtype") if isinstance(properties, dict) else properties[0]
    return Tensor(dtype=dtype.name if isinstance(dtype, Name) else "?", shape=shape)


def _sizes(size: Stub) -> tuple[int, ...]:
    """Returns the numbers of a ``torch.Size``, which is pickled as a call with one tuple."""
    (sizes,) = size.args or ((),)
    return tuple(map(_count, sizes))


def _mapping(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a dict, found {type(value).__name__}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a tensor's name is not text")
    return value


def _count(value: object) -> int:
    # A file has fewer than 2**63 bytes; arithmetic on much longer numbers has no bound in time.
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"a size is a {type(value).__name__}")
    return value


def _shard_name(value: object) -> str:
    name = _text(value)
    if not name or "/" in name or name in (".", "..") or not name.isprintable():
        raise ValueError(f"shard name {name!r} leaves the directory")
    return name
