"""Tensor archive templates: the bytes that ``torch.save`` writes around those of one tensor.

An archive is a zip file without compression. Everything in it except the tensor's bytes and their
crc32 follows from dtype and shape, so it is built once per dtype and shape. Writing a tensor then
needs no serialisation, and a reader that recognises the head knows where the bytes are.
``torch.load`` and any zip program can read the result. The records are, in this order: pickle, byte
order, version, data. The data begins at a multiple of 64 bytes from the start of the archive.

Out of scope, and left to ``torch.save``: dtypes without a storage class of their own, tensors that
are not dense, and 4 GiB and more, for which zip files need other headers.
"""

import io
import pickle
import struct
import sys
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from kempnerforge.checkpoint.format import checksum

__all__ = ["ALIGNMENT", "ArchiveTemplate", "bytes_of", "memory_of", "template_of"]

ALIGNMENT = 64
"""Alignment in bytes of the data within torch's archives."""

_STORAGES: dict[torch.dtype, Any] = {
    torch.float64: torch.DoubleStorage,
    torch.float32: torch.FloatStorage,
    torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage,
    torch.int64: torch.LongStorage,
    torch.int32: torch.IntStorage,
    torch.int16: torch.ShortStorage,
    torch.int8: torch.CharStorage,
    torch.uint8: torch.ByteStorage,
    torch.bool: torch.BoolStorage,
}
_LIMIT_BYTES = (1 << 32) - (1 << 16)
_UTF8, _STORED, _VERSION, _DATE = 0x800, 0, 20, 0x21  # the earliest date that a zip file can hold
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_CRC = struct.Struct("<I")
_LOCAL_CRC_AT, _CENTRAL_CRC_AT = 14, 16
_PADDING_TAG = b"FB"  # the tag of torch's padding


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveTemplate:
    """The bytes before and after the data of a tensor; the two places of its crc32 are zero."""

    head: bytes
    data_bytes: int
    tail: bytes
    head_crc_at: int
    """Offset of the crc32 from the start of the head."""
    tail_crc_at: int
    """Offset of the crc32 from the start of the tail."""

    @property
    def length(self) -> int:
        """Size of the whole archive in bytes."""
        return len(self.head) + self.data_bytes + len(self.tail)

    def put_crc(self, archive: Any, head_at: int, tail_at: int, crc32: int) -> None:
        """Writes the crc32 of the data into a buffer that holds head and tail at these offsets."""
        _CRC.pack_into(archive, head_at + self.head_crc_at, crc32)
        _CRC.pack_into(archive, tail_at + self.tail_crc_at, crc32)

    def crc_in(self, head: bytes | bytearray | memoryview) -> int | None:
        """Returns the crc32 stored in ``head``; None if ``head`` is not of this template."""
        at = self.head_crc_at
        before, after = self.head[:at], self.head[at + _CRC.size :]
        known = before == head[:at] and after == head[at + _CRC.size :]
        return int(_CRC.unpack_from(head, at)[0]) if known else None


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Returns the bytes of a dense, row-major tensor on the CPU, without copying them."""
    data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(data)


@lru_cache(maxsize=4096)
def template_of(dtype: torch.dtype, shape: tuple[int, ...]) -> ArchiveTemplate | None:
    """Returns the template of a dense, row-major tensor; None if ``torch.save`` must write it."""
    count = 1
    for size in shape:
        count *= size
    data_bytes = count * dtype.itemsize
    if dtype not in _STORAGES or data_bytes >= _LIMIT_BYTES:
        return None
    local, central = bytearray(), bytearray()
    described = _pickled(dtype, shape, count)
    order = sys.byteorder.encode()
    for name, content in ((b"data.pkl", described), (b"byteorder", order), (b"version", b"3\n")):
        _add(local, central, name, len(content), crc32=checksum.crc32(content))
        local += content
    head_crc_at, tail_crc_at = len(local) + _LOCAL_CRC_AT, len(central) + _CENTRAL_CRC_AT
    _add(local, central, b"data/0", data_bytes, crc32=0)
    total = len(local) + data_bytes
    central += _END.pack(b"PK\5\6", 0, 0, 4, 4, len(central), total, 0)
    return ArchiveTemplate(
        head=bytes(local),
        data_bytes=data_bytes,
        tail=bytes(central),
        head_crc_at=head_crc_at,
        tail_crc_at=tail_crc_at,
    )


def _add(local: bytearray, central: bytearray, record: bytes, size: int, *, crc32: int) -> None:
    """Appends the two headers of a record; its content follows the local one, aligned."""
    name, at = b"archive/" + record, len(local)
    extra = b""
    if record.startswith(b"data/"):
        begin = at + _LOCAL.size + len(name) + 4
        padding = -begin % ALIGNMENT
        extra = _PADDING_TAG + struct.pack("<H", padding) + b"Z" * padding
    common = (_UTF8, _STORED, 0, _DATE, crc32, size, size, len(name))
    local += _LOCAL.pack(b"PK\3\4", _VERSION, *common, len(extra)) + name + extra
    central += _CENTRAL.pack(b"PK\1\2", _VERSION, _VERSION, *common, 0, 0, 0, 0, 0, at) + name


class _Rebuilt:
    """An object that pickles as the call that rebuilds a tensor from its storage."""

    def __init__(self, storage: Any, shape: tuple[int, ...], count: int) -> None:
        self.storage, self.shape, self.count = storage, shape, count

    def __reduce__(self) -> Any:
        strides: list[int] = []
        step = 1
        for size in reversed(self.shape):
            strides.insert(0, step)
            step *= max(size, 1)
        held = _HeldStorage(self.storage, self.count)
        arguments: tuple[Any, ...] = (held, 0, self.shape, tuple(strides), False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


@dataclass(frozen=True)
class _HeldStorage:
    storage: Any
    count: int


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return (
            ("storage", obj.storage, "0", "cpu", obj.count)
            if isinstance(obj, _HeldStorage)
            else None
        )


def _pickled(dtype: torch.dtype, shape: tuple[int, ...], count: int) -> bytes:
    buffer = io.BytesIO()
    # ``torch.load`` expects pickle protocol 2.
    _Pickler(buffer, protocol=2).dump(_Rebuilt(_STORAGES[dtype], shape, count))
    return buffer.getvalue()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Returns the elements of a dense tensor as they are written, in row-major order."""
    dense = tensor.detach().cpu().contiguous()
    if dense.is_conj() or dense.is_neg():
        dense = dense.resolve_conj().resolve_neg()
    return memory_of(dense)
