"""Reading shards: each tensor is compared with its checksum before it reaches the model.

What this package wrote is read straight from its frames; what stock DCP wrote, and values that are
no tensors, go through DCP's own reader.
"""

import io
import os
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    create_default_local_load_plan,
)
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem

from kempnerforge.checkpoint.errors import CorruptCheckpointError
from kempnerforge.checkpoint.frames import Frame, frame_of, memory_of
from kempnerforge.checkpoint.state import decode_plain

__all__ = ["ReadShards", "read_shards"]


class _FlatLoadPlanner(DefaultLoadPlanner):
    """Finds targets in a flat dict; reads other values without unpickling objects."""

    def __init__(self, decode: Callable[..., Any]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.decode = decode

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        self.state_dict[name] = self.decode(value.getvalue(), where=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadShards:
    """Tensors that were read and checked, and where they go."""

    targets: list[torch.Tensor]
    values: list[torch.Tensor]

    def hand_over(self) -> None:
        """Copy the values into their targets."""
        if self.targets:
            with torch.no_grad():
                torch._foreach_copy_(self.targets, self.values)


def read_shards(
    directory: Path,
    metadata: Metadata,
    targets: dict[str, Any],
    *,
    live: Collection[str] = (),
    decode: Callable[..., Any] = decode_plain,
) -> ReadShards:
    """Read the keys of ``targets``: tensors and DTensors in place, other values replaced.

    Not collective; each rank reads what its own targets need. Data of tensors that this package
    wrote is compared with the checksum that stands in front of it, whatever was verified before.

    Args:
        directory: Holds the shards.
        metadata: Of these shards.
        targets: Flat key to the value to fill.
        live: Keys of tensors that training uses; they are left as they are until
            :meth:`ReadShards.hand_over`.
        decode: Reads values that are no tensors.

    Raises:
        CorruptCheckpointError: The data of a tensor does not have its checksum.
    """
    planner = _FlatLoadPlanner(decode)
    planner.set_up_planner(targets, metadata, is_coordinator=False)
    read = ReadShards(targets=[], values=[])
    foreign = []
    files: dict[str, list[ReadItem]] = {}
    for item in create_default_local_load_plan(targets, metadata).items if targets else ():
        files.setdefault(metadata.storage_data[item.storage_index].relative_path, []).append(item)
    for name, items in files.items():
        items.sort(key=lambda item: metadata.storage_data[item.storage_index].offset)
        with (directory / name).open("rb", buffering=0) as file:
            for item in items:
                target = _TensorRead.of(item, metadata, planner, live)
                if target is None or not target.fill(file.fileno(), directory / name):
                    foreign.append(item)
                    continue
                read.targets.extend(target.held_for)
                read.values.extend(target.held)
    _read_foreign(directory, metadata, planner, foreign, live=live, read=read)
    return read


@dataclass(frozen=True, slots=True, kw_only=True)
class _TensorRead:
    """One piece of a tensor that lies in a frame."""

    frame: Frame
    offset: int
    whole: torch.Tensor
    """Takes the saved piece."""
    held_for: tuple[torch.Tensor, ...]
    """Where it goes afterwards; empty where ``whole`` is the target itself."""
    held: tuple[torch.Tensor, ...]

    @staticmethod
    def of(
        item: ReadItem, metadata: Metadata, planner: _FlatLoadPlanner, live: Collection[str]
    ) -> "_TensorRead | None":
        """How to read ``item``; None if it is no tensor or not in a frame."""
        entry = metadata.state_dict_metadata[item.storage_index.fqn]
        stored = metadata.storage_data[item.storage_index]
        if item.type == LoadItemType.BYTE_IO or not isinstance(entry, TensorStorageMetadata):
            return None
        sizes, dtype = _saved_sizes(item, entry), entry.properties.dtype
        frame = frame_of(dtype, tuple(sizes))
        if frame is None or frame.length != stored.length or stored.transform_descriptors:
            return None
        target = planner.resolve_tensor(item).detach()
        direct = (
            item.dest_index.fqn not in live
            and target.shape == sizes
            and target.dtype == dtype
            and target.is_cpu
            and target.is_contiguous()
        )
        if direct:
            return _TensorRead(
                frame=frame, offset=stored.offset, whole=target, held_for=(), held=()
            )
        whole = torch.empty(sizes, dtype=dtype)
        part = _narrowed(whole, item.storage_offsets, item.lengths)
        return _TensorRead(
            frame=frame, offset=stored.offset, whole=whole, held_for=(target,), held=(part,)
        )

    def fill(self, fd: int, path: Path) -> bool:
        """Read and check; False if the archive is not of this form."""
        frame = self.frame
        announced = frame.crc_in(os.pread(fd, len(frame.head), self.offset))
        if announced is None:
            return False
        data = memory_of(self.whole)
        _read_fully(fd, data, self.offset + len(frame.head), path)
        if zlib.crc32(data) != announced:
            raise CorruptCheckpointError(
                f"{path}: {len(data)} bytes at {self.offset + len(frame.head)} differ from their "
                "checksum",
                path=str(path),
            )
        return True


def _read_fully(fd: int, data: memoryview, offset: int, path: Path) -> None:
    done = 0
    while done < len(data):
        count = os.preadv(fd, [data[done:]], offset + done)
        if count == 0:
            raise CorruptCheckpointError(f"{path}: ends at {offset + done}", path=str(path))
        done += count


def _narrowed(tensor: torch.Tensor, offsets: torch.Size, lengths: torch.Size) -> torch.Tensor:
    for axis, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        tensor = tensor.narrow(axis, offset, length)
    return tensor


def _saved_sizes(item: ReadItem, entry: TensorStorageMetadata) -> torch.Size:
    index = item.storage_index.index
    if index is not None and entry.chunks[index].offsets == item.storage_index.offset:
        return entry.chunks[index].sizes
    return next(chunk.sizes for chunk in entry.chunks if chunk.offsets == item.storage_index.offset)


class _HoldingPlanner(_FlatLoadPlanner):
    """Lets DCP's reader fill buffers in place of tensors that are in use."""

    def __init__(self, live: Collection[str], read: ReadShards, decode: Callable[..., Any]) -> None:
        super().__init__(decode)
        self._live, self._read = live, read

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        target: torch.Tensor = super().resolve_tensor(read_item).detach()
        if read_item.dest_index.fqn not in self._live:
            return target
        value = torch.empty_like(target, memory_format=torch.contiguous_format)
        self._read.targets.append(target)
        self._read.values.append(value)
        return value


def _read_foreign(
    directory: Path,
    metadata: Metadata,
    found: _FlatLoadPlanner,
    items: list[ReadItem],
    *,
    live: Collection[str],
    read: ReadShards,
) -> None:
    """What stock DCP wrote, and values that are no tensors, by DCP's own reader."""
    if not items:
        return
    planner = _HoldingPlanner(live, read, found.decode)
    planner.set_up_planner(found.state_dict, metadata, is_coordinator=False)
    reader = FileSystemReader(directory)
    reader.set_up_storage_reader(metadata, is_coordinator=False)
    reader.read_data(LoadPlan(items), planner).wait()
