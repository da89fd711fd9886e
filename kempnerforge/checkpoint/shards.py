"""Shards in the format of torch.distributed.checkpoint, written durably and read without pickle.

Only DCP's planners and file format are used, not its ``save`` and ``load``: those run collectives
that cannot name a rank that is lost, fsync ``.metadata`` before it is flushed, and unpickle
whatever they find. What is written stays readable by stock ``dcp.load``.
"""

import io
import math
import os
import pickle
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import (
    FileSystem,
    FileSystemReader,
    FileSystemWriter,
)
from torch.distributed.checkpoint.metadata import (
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem, SavePlan, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult

from kempnerforge.checkpoint.errors import CorruptCheckpointError, UnsafeCheckpointError
from kempnerforge.checkpoint.manifest import FileRecord
from kempnerforge.checkpoint.state import decode_plain, encode_plain
from kempnerforge.checkpoint.storage import FileSink

__all__ = [
    "StagedShards",
    "WrittenShards",
    "check_metadata",
    "decode_metadata",
    "encode_metadata",
    "flat_paths",
    "merge_plans",
    "read_shards",
    "stage_shards",
    "write_shards",
]

_DCP_VERSION = "1.0.0"

Copy = Callable[[MetadataIndex, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedShards:
    """What one rank would write, and the values to write, detached from training where copied."""

    plan: SavePlan
    values: Mapping[MetadataIndex, torch.Tensor | io.BytesIO]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenShards:
    """What one rank wrote."""

    files: Mapping[str, FileRecord]
    """By name within the shard directory."""
    results: tuple[WriteResult, ...]


class _StagedPlanner(DefaultSavePlanner):
    """Plans from a state dict; serialises values that are not tensors so that they load safely."""

    def transform_object(self, write_item: WriteItem, object: Any) -> Any:
        if write_item.type == WriteItemType.BYTE_IO:
            return io.BytesIO(encode_plain(object, what=write_item.index.fqn))
        return object


class _StagedValues(DefaultSavePlanner):
    """Answers the writer's questions from what was staged."""

    def __init__(self, values: Mapping[MetadataIndex, torch.Tensor | io.BytesIO]) -> None:
        super().__init__()
        self._values = values

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        return self._values[write_item.index]


def stage_shards(state_dict: dict[str, Any], *, copy: Copy, is_coordinator: bool) -> StagedShards:
    """Plan this rank's writes of ``state_dict`` and take its values.

    Not collective. Values that are not tensors are serialised here.

    Args:
        state_dict: Nested dicts and lists of tensors, DTensors and plain values.
        copy: Called with each local tensor; what it returns is written.
        is_coordinator: Whether this is the first rank of those that share the shard directory.
    """
    planner = _StagedPlanner()
    planner.set_up_planner(state_dict, is_coordinator=is_coordinator)
    plan = planner.create_local_plan()
    values: dict[MetadataIndex, torch.Tensor | io.BytesIO] = {}
    for item in plan.items:
        value = planner.resolve_data(item)
        if isinstance(value, torch.Tensor):
            value = copy(item.index, value.detach())
        values[item.index] = value
    return StagedShards(plan=plan, values=values)


def merge_plans(plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
    """Who writes what, without duplicates, and the metadata that describes the whole.

    Args:
        plans: Local plans of all ranks that share a shard directory, in rank order.
    """
    merged, metadata = DefaultSavePlanner().create_global_plan(plans)
    numbered = FileSystemWriter(".").prepare_global_plan(merged)
    return numbered, metadata


def write_shards(directory: Path, plan: SavePlan, staged: StagedShards) -> WrittenShards:
    """Write this rank's part; durable on return, but for the names in ``directory``."""
    writer = FileSystemWriter(
        directory, sync_files=False, thread_count=1, per_thread_copy_ahead=0, overwrite=True
    )
    recording = _RecordingFileSystem()
    writer.fs = recording
    written = writer.write_data(plan, _StagedValues(staged.values))
    written.wait()
    return WrittenShards(files=dict(recording.records), results=tuple(written.value()))


class _RecordingFileSystem(FileSystem):
    """Creates every file through a :class:`FileSink` and remembers its checksum."""

    def __init__(self) -> None:
        self.records: dict[str, FileRecord] = {}

    @contextmanager
    def create_stream(
        self, path: str | os.PathLike[str], mode: str
    ) -> Generator[io.IOBase, None, None]:
        if mode != "wb":
            raise ValueError(f"this file system only creates files, asked for mode {mode!r}")
        with FileSink(Path(path)) as sink:
            yield cast(io.IOBase, sink)
        self.records[Path(path).name] = sink.record


def encode_metadata(
    metadata: Metadata, results: Iterable[Iterable[WriteResult]], *, save_id: str
) -> bytes:
    """Content of ``.metadata`` for shards that were written with ``results``."""
    metadata.storage_data = {
        result.index: result.storage_data for of_rank in results for result in of_rank
    }
    metadata.storage_meta = StorageMeta(save_id=save_id)
    if hasattr(metadata, "version"):
        metadata.version = _DCP_VERSION
    return pickle.dumps(metadata)


_METADATA_CLASSES = (
    "Metadata",
    "MetadataIndex",
    "TensorStorageMetadata",
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "TensorProperties",
    "StorageMeta",
    "_MEM_FORMAT_ENCODING",
)
_ALLOWED_GLOBALS = frozenset(
    {(dcp_metadata.__name__, name) for name in _METADATA_CLASSES}
    | {
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("torch", "Size"),
        ("torch.serialization", "_get_layout"),
        ("collections", "OrderedDict"),
        ("pathlib", "PosixPath"),
        ("pathlib", "PurePosixPath"),
    }
)


class _MetadataUnpickler(pickle.Unpickler):
    """Builds the few classes that ``.metadata`` consists of and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED_GLOBALS:
            return super().find_class(module, name)
        value = getattr(torch, name, None) if module == "torch" else None
        if isinstance(value, torch.dtype | torch.memory_format):
            return value
        raise UnsafeCheckpointError(f"it asks for {module}.{name}, which is not allowed")


def decode_metadata(data: bytes, *, where: str) -> Metadata:
    """Read ``.metadata`` without running anything that it contains.

    Raises:
        UnsafeCheckpointError: It asks for a class that metadata does not consist of.
        CorruptCheckpointError: It is not metadata.
    """
    try:
        found = _MetadataUnpickler(io.BytesIO(data)).load()
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{where}: refused: {error}", path=where) from error
    except Exception as error:  # a damaged pickle raises almost anything; it becomes our error
        raise CorruptCheckpointError(f"{where}: cannot be read: {error!r}", path=where) from error
    if not isinstance(found, Metadata) or not isinstance(found.storage_data, dict):
        raise CorruptCheckpointError(f"{where}: is not DCP metadata", path=where)
    return found


def check_metadata(directory: Path, metadata: Metadata) -> None:
    """Check that the shards the metadata speaks of are there and large enough.

    Raises:
        CorruptCheckpointError: A file is missing, short or outside of ``directory``, or a tensor is
            not covered by its chunks.
    """
    ends: dict[str, int] = {}
    for info in metadata.storage_data.values():
        name = info.relative_path
        ends[name] = max(ends.get(name, 0), info.offset + info.length)
    for name, end in sorted(ends.items()):
        if Path(name).name != name:
            raise CorruptCheckpointError(f"{directory}: shard name {name!r} leaves the directory")
        try:
            size = (directory / name).stat().st_size
        except OSError as error:
            raise CorruptCheckpointError(f"{directory / name}: {error.strerror}") from error
        if size < end:
            raise CorruptCheckpointError(f"{directory / name}: {size} bytes, needs {end}")
    for key, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, TensorStorageMetadata):
            covered = sum(math.prod(chunk.sizes) for chunk in entry.chunks)
            if covered != math.prod(entry.size):
                raise CorruptCheckpointError(f"{directory}: the chunks of {key} do not cover it")


def flat_paths(metadata: Metadata) -> dict[str, tuple[str | int, ...]]:
    """Flat key to the path of keys and indices that it was flattened from."""
    mappings = metadata.planner_data or {}
    return {key: tuple(mappings.get(key, key.split("."))) for key in metadata.state_dict_metadata}


class _FlatLoadPlanner(DefaultLoadPlanner):
    """Fills a flat dict: tensors in place, other values without unpickling objects."""

    def __init__(self, decode: Callable[..., Any]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._decode = decode

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        self.state_dict[name] = self._decode(value.getvalue(), where=name)


def read_shards(
    directory: Path,
    metadata: Metadata,
    targets: dict[str, Any],
    *,
    decode: Callable[..., Any] = decode_plain,
) -> None:
    """Read the keys of ``targets``: tensors and DTensors in place, other values replaced.

    Not collective; each rank reads what its own targets need.
    """
    if not targets:
        return
    planner = _FlatLoadPlanner(decode)
    planner.set_up_planner(targets, metadata, is_coordinator=False)
    reader = FileSystemReader(directory)
    reader.set_up_storage_reader(metadata, is_coordinator=False)
    reader.read_data(planner.create_local_plan(), planner).wait()
