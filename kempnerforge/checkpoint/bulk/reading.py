"""Reads shards, and compares each tensor with its checksum before it reaches the model.

Shards written by this package are read directly from their templates; those of stock DCP go through
DCP's own reader. A file that this rank has to verify is read from front to back, including parts
that its targets do not need, and its checksum is computed as a whole. Of any other file only the
needed tensors are read, each compared with the checksum stored in front of it.
"""

import io
import math
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    create_default_local_load_plan,
)
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, ReadItem
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from kempnerforge.checkpoint.archives.archive_template import (
    ArchiveTemplate,
    memory_of,
    template_of,
)
from kempnerforge.checkpoint.archives.plain_values import decode_plain
from kempnerforge.checkpoint.archives.shard_metadata import is_ours
from kempnerforge.checkpoint.errors import CheckpointError, CorruptCheckpointError, named
from kempnerforge.checkpoint.format import checksum
from kempnerforge.checkpoint.format.manifest import FileRecord, require_same

__all__ = ["Answerable", "ReadShards", "read_shards"]

_SKIP_BYTES = 1 << 20
# The end of one archive, and the padding after it, are read together with the next one.
_GAP_BYTES = 1 << 12
_CACHED_CHUNKS = 4096


class Answerable(Protocol):
    """The part of :class:`verification.Verifier` that says which files to read in full."""

    def expected(self, name: str) -> FileRecord | None:
        """Returns size and checksum of a file to be read in full; None for any other file."""

    def found_intact(self, name: str) -> None:
        """Records that a file was read in full and is as expected."""


class _Nothing:
    """Asks for no file to be read in full."""

    def expected(self, name: str) -> None:
        del name

    def found_intact(self, name: str) -> None:
        del name


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadShards:
    """Tensors that were read and checked, with their targets."""

    targets: list[torch.Tensor]
    values: list[torch.Tensor]

    def hand_over(self) -> None:
        """Copies the values into their targets."""
        targets, values = [], []
        with torch.no_grad():
            for target, value in zip(self.targets, self.values, strict=True):
                if target.is_conj() or target.is_neg():
                    target.copy_(value)  # a multi-tensor copy refuses these
                else:
                    targets.append(target)
                    values.append(value)
            if targets:
                torch._foreach_copy_(targets, values)


def read_shards(
    directory: Path,
    metadata: Metadata,
    targets: dict[str, Any],
    *,
    live: Collection[str] = (),
    decode: Callable[..., Any] = decode_plain,
    answerable: Answerable | None = None,
) -> ReadShards:
    """Reads the keys of ``targets``: fills tensors and DTensors in place, replaces other values.

    Not collective; each rank reads what its own targets need.

    Args:
        directory: The directory of the shards.
        metadata: The metadata of these shards.
        targets: Maps a flat key to the value to fill.
        live: Keys of tensors that training uses; they stay unchanged until
            :meth:`ReadShards.hand_over`.
        decode: Decodes values that are not tensors.
        answerable: Says which files to read and verify in full.

    Raises:
        CorruptCheckpointError: A file or the data of a tensor is missing, or does not match its
            checksum.
        OSError: A file cannot be read.
    """
    answerable = answerable or _Nothing()
    job = _Job(metadata, targets, live, decode)
    files: dict[str, list[_Piece]] = {}
    with torch.no_grad():
        for piece in job.pieces():
            files.setdefault(piece.file, []).append(piece)
        for name, pieces in files.items():
            record = answerable.expected(name)
            with (directory / name).open("rb", buffering=0) as file:
                source = _Source(file.fileno(), directory / name, whole=record is not None)
                for piece in sorted(pieces, key=lambda piece: piece.offset):
                    job.read(piece, source)
                if record is not None:
                    require_same(directory, name, source.finish(), record)
                    answerable.found_intact(name)
                job.decode_values(directory / name)
    job.read_foreign(directory)
    return job.found


class _Source:
    """One open shard file. If it is read in full, all reads go forward and enter its checksum.

    Args:
        fd: Descriptor, open for reading.
        path: Path, for errors.
        whole: Whether to read every byte.
    """

    def __init__(self, fd: int, path: Path, *, whole: bool) -> None:
        self.path = path
        self._fd = fd
        self._whole = whole
        self._between = memoryview(bytearray(_GAP_BYTES if whole else 0))
        self._at = 0
        self._crc32 = 0

    def read(self, size: int, offset: int) -> memoryview:
        """Returns bytes from the file."""
        data = memoryview(bytearray(size))
        self.fill([data], offset)
        return data

    def fill(self, parts: list[memoryview], offset: int) -> int | None:
        """Fills ``parts`` one after the other from the file.

        Returns:
            The crc32 of the last part, or None if the checksum covers the whole file.
        """
        gap = offset - self._at
        if self._whole and gap >= 0:
            if gap > _GAP_BYTES:
                self._skip_to(offset)
            elif gap:
                parts = [self._between[:gap], *parts]
            self._take(parts)
            return None
        self._read_fully(parts, offset)
        return checksum.crc32(parts[-1])

    def finish(self) -> FileRecord:
        """Reads to the end; returns size and checksum of the whole file."""
        with named(self.path):
            size = os.fstat(self._fd).st_size
        self._skip_to(max(self._at, size))
        return FileRecord(size=self._at, crc32=self._crc32)

    def _skip_to(self, offset: int) -> None:
        if self._at == offset:
            return
        scratch = memoryview(bytearray(min(_SKIP_BYTES, offset - self._at)))
        while self._at < offset:
            self._take([scratch[: offset - self._at]])

    def _take(self, parts: list[memoryview]) -> None:
        self._read_fully(parts, self._at)
        for part in parts:
            self._crc32 = checksum.crc32(part, self._crc32)
            self._at += len(part)

    def _read_fully(self, parts: list[memoryview], offset: int) -> None:
        missing = sum(map(len, parts))
        while missing:
            with named(self.path):
                count = os.preadv(self._fd, parts, offset)
            if count == 0:
                raise CorruptCheckpointError(f"{self.path}: ends at {offset}", path=str(self.path))
            offset, missing = offset + count, missing - count
            if missing:
                parts = _beyond(parts, count)


def _beyond(parts: list[memoryview], count: int) -> list[memoryview]:
    """Returns ``parts`` without their first ``count`` bytes."""
    left = []
    for part in parts:
        left.append(part[count:])
        count = max(0, count - len(part))
    return [part for part in left if part]


class _Into(NamedTuple):
    """The target of a saved tensor, with the tensor's type and shape."""

    target: torch.Tensor
    dtype: torch.dtype
    """Dtype of the saved tensor."""
    sizes: torch.Size
    """Shape of the saved tensor."""

    def fits(self) -> bool:
        """Whether the saved bytes can be read directly into the target."""
        target = self.target
        return (
            target.shape == self.sizes
            and target.dtype == self.dtype
            and target.is_cpu
            and target.is_contiguous()
        )


class _Piece(NamedTuple):
    """One contiguous read of a file."""

    key: str
    file: str
    offset: int
    length: int
    item: ReadItem | None
    """DCP's plan for it; None if the tensor is wanted exactly as saved."""
    into: _Into | None
    """None for a value that is not a tensor."""
    template: ArchiveTemplate | None
    """None for data that DCP's reader has to read, such as compressed data."""

    def wanted(self, saved: torch.Tensor) -> torch.Tensor:
        """Returns the part of the saved tensor that the target takes."""
        if self.item is None:
            return saved
        part = zip(self.item.storage_offsets, self.item.lengths, strict=True)
        for axis, (offset, length) in enumerate(part):
            saved = saved.narrow(axis, offset, length)
        return saved


class _Job:
    """One call of :func:`read_shards`."""

    def __init__(
        self,
        metadata: Metadata,
        targets: dict[str, Any],
        live: Collection[str],
        decode: Callable[..., Any],
    ) -> None:
        self.metadata, self.targets, self.live, self.decode = metadata, targets, live, decode
        self.found = ReadShards(targets=[], values=[])
        self._foreign: list[ReadItem] = []
        self._values: dict[str, bytes] = {}
        self._passage = torch.empty(0, dtype=torch.uint8, device="cpu")

    def pieces(self) -> Iterator[_Piece]:
        """Plans the reads; DCP plans only values that were saved in another layout."""
        others = {}
        for key, value in self.targets.items():
            piece = self._as_saved(key, value)
            if piece is None:
                others[key] = value
            else:
                yield piece
        if others:
            planner = self._planner(_FlatLoadPlanner(self.decode), others)
            for item in create_default_local_load_plan(others, self.metadata).items:
                yield self._as_planned(item, planner)

    def read(self, piece: _Piece, source: _Source) -> None:
        """Reads one piece; data without a template is left to :meth:`read_foreign`."""
        if piece.into is None and piece.item is None:
            self._values[piece.key] = bytes(source.read(piece.length, piece.offset))
        elif piece.into is None or not self._read_tensor(piece, piece.into, source):
            self._foreign.extend(self._planned(piece))

    def decode_values(self, file: Path) -> None:
        """Decodes values that are not tensors, after their file is verified: a better error."""
        for key, data in self._values.items():
            self.targets[key] = self.decode(data, where=f"{file}: {key}")
        self._values.clear()

    def read_foreign(self, directory: Path) -> None:
        """Reads shards of stock DCP with DCP's own reader.

        Raises:
            CorruptCheckpointError: DCP cannot read it.
        """
        if not self._foreign:
            return
        try:
            self._read_by_dcp(directory)
        except Exception as error:  # a damaged archive can raise almost anything
            # Shards of this package have checksums, which distinguish damage from other errors.
            if is_ours(self.metadata) or _says_nothing_of_a_file(error):
                raise
            raise CorruptCheckpointError(
                f"{directory}: its shards cannot be read: {error!r}", path=str(directory)
            ) from error

    def _read_by_dcp(self, directory: Path) -> None:
        planner = self._planner(_HoldingPlanner(self.live, self.found, self.decode), self.targets)
        reader = FileSystemReader(directory)
        reader.set_up_storage_reader(self.metadata, is_coordinator=False)
        reader.read_data(LoadPlan(self._foreign), planner).wait()

    def _planner(self, planner: "_FlatLoadPlanner", targets: dict[str, Any]) -> "_FlatLoadPlanner":
        planner.set_up_planner(targets, self.metadata, is_coordinator=False)
        return planner

    def _as_saved(self, key: str, value: Any) -> _Piece | None:
        """Returns the piece that is all of ``value``, or None if it was not saved as one piece."""
        entry = self.metadata.state_dict_metadata[key]
        if isinstance(entry, BytesStorageMetadata):
            return self._piece(MetadataIndex(key))
        if not isinstance(value, torch.Tensor) or entry.size != value.shape:
            return None
        chunk = _chunk_of(value)
        if chunk not in entry.chunks:
            return None
        local = value.to_local() if isinstance(value, DTensor) else value
        into = _Into(local.detach(), entry.properties.dtype, chunk.sizes)
        return self._piece(MetadataIndex(key, chunk.offsets), into=into)

    def _as_planned(self, item: ReadItem, planner: "_FlatLoadPlanner") -> _Piece:
        entry = self.metadata.state_dict_metadata[item.storage_index.fqn]
        into = None
        if item.type != LoadItemType.BYTE_IO and isinstance(entry, TensorStorageMetadata):
            target = planner.resolve_tensor(item).detach()
            into = _Into(target, entry.properties.dtype, _saved_sizes(item, entry))
        piece = self._piece(item.storage_index, item, into=into)
        assert piece is not None
        return piece

    def _piece(
        self, index: MetadataIndex, item: ReadItem | None = None, *, into: _Into | None = None
    ) -> _Piece | None:
        stored = self.metadata.storage_data.get(index)
        if stored is None or (item is None and stored.transform_descriptors):
            return None
        template = None
        if into is not None and not stored.transform_descriptors:
            template = template_of(into.dtype, tuple(into.sizes))
        return _Piece(
            key=index.fqn,
            file=stored.relative_path,
            offset=stored.offset,
            length=stored.length,
            item=item,
            into=into,
            template=template
            if template is not None and template.length == stored.length
            else None,
        )

    def _read_tensor(self, piece: _Piece, into: _Into, source: _Source) -> bool:
        """Reads and checks; returns False, with undefined target, if there is no template."""
        template = piece.template
        if template is None:
            return False
        held = piece.key in self.live
        if held:
            whole = torch.empty(into.sizes, dtype=into.dtype, device="cpu")
        else:
            whole = into.target if into.fits() else self._passing(into)
        head, data = memoryview(bytearray(len(template.head))), memory_of(whole)
        crc32 = source.fill([head, data], piece.offset)
        announced = template.crc_in(head)
        if announced is None and is_ours(self.metadata):
            raise CorruptCheckpointError(
                f"{source.path}: the expected tensor does not begin at {piece.offset}",
                path=str(source.path),
            )
        if announced is None:
            return False
        if crc32 is not None and crc32 != announced:
            raise CorruptCheckpointError(
                f"{source.path}: {len(data)} bytes at {piece.offset + len(head)} differ from "
                "their checksum",
                path=str(source.path),
            )
        if held:
            self.found.targets.append(into.target)
            self.found.values.append(piece.wanted(whole))
        elif whole is not into.target:
            into.target.copy_(piece.wanted(whole))  # synchronous: `whole` can be reused afterwards
        return True

    def _passing(self, into: _Into) -> torch.Tensor:
        """Returns scratch memory for a tensor that is copied on to its target; reused each time."""
        size = math.prod(into.sizes) * into.dtype.itemsize
        if self._passage.numel() < size:
            self._passage = torch.empty(size, dtype=torch.uint8, device="cpu")
        return self._passage[:size].view(into.dtype).view(into.sizes)

    def _planned(self, piece: _Piece) -> list[ReadItem]:
        """Returns DCP's read items for a piece; none for an empty tensor."""
        if piece.item is not None:
            return [piece.item]
        target = {piece.key: self.targets[piece.key]}
        return list(create_default_local_load_plan(target, self.metadata).items)


def _chunk_of(value: torch.Tensor) -> ChunkStorageMetadata:
    """Returns the part of the whole tensor that this rank holds."""
    if isinstance(value, DTensor):
        return _chunk_of_placed(value.shape, value.device_mesh, value.placements)
    return ChunkStorageMetadata(offsets=torch.Size([0] * value.dim()), sizes=value.shape)


@lru_cache(maxsize=_CACHED_CHUNKS)
def _chunk_of_placed(shape: torch.Size, mesh: Any, placements: Any) -> ChunkStorageMetadata:
    sizes, offsets = compute_local_shape_and_global_offset(shape, mesh, placements)
    return ChunkStorageMetadata(offsets=torch.Size(offsets), sizes=torch.Size(sizes))


def _saved_sizes(item: ReadItem, entry: TensorStorageMetadata) -> torch.Size:
    index = item.storage_index.index
    if index is not None and entry.chunks[index].offsets == item.storage_index.offset:
        return entry.chunks[index].sizes
    return next(chunk.sizes for chunk in entry.chunks if chunk.offsets == item.storage_index.offset)


class _FlatLoadPlanner(DefaultLoadPlanner):
    """Finds targets in a flat dict; reads other values without unpickling objects."""

    def __init__(self, decode: Callable[..., Any]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.decode = decode

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        self.state_dict[name] = self.decode(value.getvalue(), where=name)


class _HoldingPlanner(_FlatLoadPlanner):
    """Makes DCP's reader fill buffers instead of tensors that are in use."""

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


def _says_nothing_of_a_file(error: Exception) -> bool:
    """Whether the error is not about a file: no memory, a device error, or already explained."""
    known = CheckpointError | OSError | MemoryError | torch.AcceleratorError
    # DCP and torch's archive reader wrap errors of the file in errors of their own.
    if any(isinstance(one, known) for one in (error, error.__cause__, error.__context__)):
        return True
    # When host memory runs out, torch raises an error without a class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
