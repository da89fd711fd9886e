"""The image of a shard file: what a rank will write, copied so that training can continue.

Each tensor has a slot in one flat buffer, between the fixed bytes that make it an archive
(:mod:`archive_template`). Capturing the state is then one multi-tensor copy, and writing it one
pass over memory without serialisation. If training waits for the save, large tensors are not
copied: their slot holds only the fixed bytes, and they are written from their own memory.

Buffers are reused by the next save, so a save must not begin before the previous one has written
them; the manager waits for that. If a writer hangs and may still use them, they are dropped
instead.
"""

import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.distributed.checkpoint.planner import WriteItem, WriteItemType

from kempnerforge.checkpoint.archives.archive_template import (
    ALIGNMENT,
    ArchiveTemplate,
    bytes_of,
    memory_of,
    template_of,
)
from kempnerforge.checkpoint.format import checksum
from kempnerforge.checkpoint.runtime.sink import FileSink

__all__ = ["BufferLayout", "Image", "KeptBuffers", "LiveTensors", "Stager"]

# From this size on, a separate write and a combined checksum (20 us) pay off for a tensor.
_LARGE_BYTES = 1 << 20
# Measured with `benchmarks.checkpoint`: at 25 MB per rank training loses the same time either way,
# at 250 MB half as much if the file bypasses the page cache. Nothing was measured in between.
_DIRECT_BYTES = 1 << 26
# Below this size, copying costs less than one more write.
_SMALL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    template: ArchiveTemplate | None
    """None for values without a fixed form: objects, rare dtypes."""
    at: int
    """Offset of the head in the buffer."""
    copied: bool

    @property
    def data_at(self) -> int:
        assert self.template is not None
        return self.at + len(self.template.head)

    @property
    def tail_at(self) -> int:
        assert self.template is not None
        return self.data_at + (self.template.data_bytes if self.copied else 0)


class BufferLayout:
    """The place of each item of a plan in the buffer.

    Args:
        items: The items, in the order in which they are written.
        copies_below: Tensors of this size in bytes or more are not copied.
    """

    def __init__(self, items: Iterable[WriteItem], *, copies_below: int) -> None:
        self.items = tuple(items)
        self.slots: list[_Slot] = []
        size = 0
        for item in self.items:
            slot = _Slot(template=_template(item), at=size, copied=False)
            if slot.template is not None:
                copied = slot.template.data_bytes < copies_below
                slot = _Slot(template=slot.template, at=size, copied=copied)
                size = _aligned(slot.tail_at + len(slot.template.tail))  # type: ignore[union-attr]
            self.slots.append(slot)
        self.buffer_bytes = size
        self.copied = [position for position, slot in enumerate(self.slots) if slot.copied]

    def allocate(self, *, pinned: bool) -> torch.Tensor:
        """Returns a buffer with all fixed bytes in place."""
        # Explicit, because a program may have set another default device.
        host = torch.device("cpu")
        buffer = torch.zeros(self.buffer_bytes, dtype=torch.uint8, device=host, pin_memory=pinned)
        raw = memory_of(buffer)
        for slot in self.slots:
            if slot.template is not None:
                raw[slot.at : slot.data_at] = slot.template.head
                raw[slot.tail_at : slot.tail_at + len(slot.template.tail)] = slot.template.tail
        return buffer

    def views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Returns, for each slot that is copied, a tensor over its data, in order."""
        views = []
        for item, slot in zip(self.items, self.slots, strict=True):
            if slot.copied and slot.template is not None and item.tensor_data is not None:
                data = buffer[slot.data_at : slot.tail_at]
                sizes = item.tensor_data.chunk.sizes
                views.append(data.view(item.tensor_data.properties.dtype).view(sizes))
        return views


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The state of one rank; the copied part is detached from training."""

    layout: BufferLayout
    buffer: torch.Tensor
    others: Sequence[torch.Tensor | bytes | None]
    """By slot: the values that the buffer does not hold."""
    may_go_direct: bool = False
    """Whether its file may bypass the page cache."""
    checksums: dict[int, int] = field(default_factory=dict)
    """By slot: crc32 of its data, computed on first use."""

    def fingerprint(self, position: int) -> int:
        """Returns two checksums of one item's data, in 64 bits.

        Ranks exchange them to detect differences. A collision would lose one rank's value, and 32
        bits are too few for thousands of values in thousands of saves.
        """
        data = self._bytes(position)
        if position not in self.checksums:
            self.checksums[position] = checksum.crc32(data)
        return checksum.adler32(data) << 32 | self.checksums[position]

    def _bytes(self, position: int) -> memoryview | bytes:
        slot, other = self.layout.slots[position], self.others[position]
        if isinstance(other, torch.Tensor):
            return bytes_of(other)
        if other is not None or slot.template is None:
            return other or b""
        return memory_of(self.buffer)[slot.data_at : slot.tail_at]

    def goes_direct(self, wanted: Sequence[int]) -> bool:
        """Whether the file of the items at these positions should bypass the page cache."""
        return self.may_go_direct and sum(map(self._size, wanted)) >= _DIRECT_BYTES

    def _size(self, position: int) -> int:
        template, other = self.layout.slots[position].template, self.others[position]
        if template is not None:
            return template.length
        return other.nbytes if isinstance(other, torch.Tensor) else len(other or b"")

    def write(self, sink: FileSink, wanted: Sequence[int]) -> list[tuple[int, int]]:
        """Writes the items at these positions, in increasing order.

        Returns:
            Offset and length of each item in the file.
        """
        raw = memory_of(self.buffer)
        places = []
        begin = end = 0  # range of the buffer not yet passed to the sink
        for position in wanted:
            slot = self.layout.slots[position]
            if slot.at != end:
                sink.write(raw[begin:end])
                begin = end = slot.at
            if slot.template is None:
                sink.write(raw[begin:end])
                begin = end
                places.append(self._write_other(sink, position))
                continue
            places.append((sink.tell() + slot.at - begin, slot.template.length))
            data = self._data(raw, slot, position)
            crc32 = self.checksums.get(position)
            if crc32 is None:
                crc32 = checksum.crc32(data)
            slot.template.put_crc(raw, slot.at, slot.tail_at, crc32)
            if not slot.copied or len(data) >= _LARGE_BYTES:
                sink.write(raw[begin : slot.data_at])
                sink.write(data, crc32=crc32)
                begin = slot.tail_at
            end = _aligned(slot.tail_at + len(slot.template.tail))
        sink.write(raw[begin:end])
        return places

    def _data(self, raw: memoryview, slot: _Slot, position: int) -> memoryview:
        if slot.copied:
            return raw[slot.data_at : slot.tail_at]
        tensor = self.others[position]
        assert isinstance(tensor, torch.Tensor)
        return bytes_of(tensor)

    def _write_other(self, sink: FileSink, position: int) -> tuple[int, int]:
        offset, value = sink.tell(), self.others[position]
        if isinstance(value, torch.Tensor):
            archive = io.BytesIO()
            torch.save(value.cpu().clone(), archive)
            sink.write(archive.getbuffer())
        elif value is not None:
            sink.write(value)
        return offset, sink.tell() - offset


class Stager(Protocol):
    """Captures tensors at the moment of a save. All calls come from the training thread."""

    known: Any
    """State that :func:`shards.stage_shards` keeps from the previous save."""

    def take(self, items: Sequence[WriteItem], values: Sequence[torch.Tensor | bytes]) -> Image:
        """Returns the image of these items; the same sequence object means the same layout."""

    def finish(self) -> None:
        """Waits until every copy is complete and other threads can read what was not copied."""

    def drop(self) -> None:
        """Gives up the present buffers, so that they are never filled again."""


class LiveTensors:
    """Copies only small tensors, for saves that training waits for."""

    def __init__(self) -> None:
        self.known: Any = None
        self._devices: set[torch.device] = set()
        self._layout = BufferLayout((), copies_below=_SMALL_BYTES)

    def take(self, items: Sequence[WriteItem], values: Sequence[torch.Tensor | bytes]) -> Image:
        if self._layout.items is not items:
            self._layout = BufferLayout(items, copies_below=_SMALL_BYTES)
        buffer = self._layout.allocate(pinned=False)
        sources, others = _sorted_out(self._layout, values)
        _copy(self._layout.views(buffer), sources)
        self._devices = _accelerators(values)
        return Image(layout=self._layout, buffer=buffer, others=others)

    def finish(self) -> None:
        # Another thread reads what was not copied, and its stream would not wait for computations
        # still queued on this thread's stream.
        _synchronize(self._devices)
        self._devices = set()

    def drop(self) -> None:
        pass


class KeptBuffers:
    """Copies everything into a buffer that is allocated once.

    Args:
        pinned: Use page-locked memory, into which accelerator tensors are copied without waiting
            for each. If no tensor is on an accelerator, ordinary memory is used.
        direct: Large files may bypass the page cache.
    """

    def __init__(self, *, pinned: bool, direct: bool = True) -> None:
        self.known: Any = None
        self._pinned, self._direct = pinned, direct
        self._devices: set[torch.device] = set()
        self._layout = BufferLayout((), copies_below=sys.maxsize)
        self._buffer = self._layout.allocate(pinned=False)
        self._views: list[torch.Tensor] = []

    def take(self, items: Sequence[WriteItem], values: Sequence[torch.Tensor | bytes]) -> Image:
        devices = _accelerators(values)
        if self._layout.items is not items:
            self._layout = BufferLayout(items, copies_below=sys.maxsize)
            self._buffer = self._layout.allocate(pinned=self._pinned and bool(devices))
            self._views = self._layout.views(self._buffer)
        sources, others = _sorted_out(self._layout, values)
        _copy(self._views, sources, non_blocking=self._buffer.is_pinned() if devices else False)
        self._devices = devices
        held = [value.clone() if isinstance(value, torch.Tensor) else value for value in others]
        return Image(
            layout=self._layout, buffer=self._buffer, others=held, may_go_direct=self._direct
        )

    def finish(self) -> None:
        _synchronize(self._devices)
        self._devices = set()

    def drop(self) -> None:
        self._layout = BufferLayout((), copies_below=sys.maxsize)
        self._buffer = self._layout.allocate(pinned=False)
        self._views = []


def _template(item: WriteItem) -> ArchiveTemplate | None:
    data = item.tensor_data
    if item.type == WriteItemType.BYTE_IO or data is None:
        return None
    return template_of(data.properties.dtype, tuple(data.chunk.sizes))


def _accelerators(values: Sequence[torch.Tensor | bytes]) -> set[torch.device]:
    return {value.device for value in values if isinstance(value, torch.Tensor) and value.is_cuda}


def _synchronize(devices: set[torch.device]) -> None:
    """Waits for the work that the current thread has queued on these devices."""
    for device in devices:
        torch.cuda.current_stream(device).synchronize()


def _aligned(size: int) -> int:
    return size + -size % ALIGNMENT


def _sorted_out(
    layout: BufferLayout, values: Sequence[torch.Tensor | bytes]
) -> tuple[list[Any], list[torch.Tensor | bytes | None]]:
    """Returns the values that go into the buffer, and the others by position."""
    others: list[torch.Tensor | bytes | None] = list(values)
    sources = []
    for position in layout.copied:
        sources.append(values[position])
        others[position] = None
    return sources, others


def _copy(
    targets: list[torch.Tensor], sources: list[torch.Tensor], *, non_blocking: bool = False
) -> None:
    if targets:
        with torch.no_grad():
            torch._foreach_copy_(targets, sources, non_blocking=non_blocking)
