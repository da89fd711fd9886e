"""The manifest: lists the files of a committed checkpoint, with sizes and checksums.

It is the last file of a save, written once every other file is durable; its presence makes a
directory a checkpoint of this package. Its encoding is canonical (sorted keys, no spaces) and
includes its own checksum, so any changed byte in it is detected, and through it any changed byte in
the other files.

Formats evolve by these rules, so that each version of the package knows what it must not touch
(docs/storage.md states them for users):

- A manifest is written in the lowest format that can describe it, and every format that was ever
  written can be read.
- Every format keeps the encoding, the checksum, the name ``manifest.json`` and the :class:`Head`:
  ``format``, ``save_id``, ``step``, ``sequence`` and ``parent`` in the same places.
- Of a format beyond :data:`READABLE_FORMATS` only the head is read. Loading such a checkpoint
  raises an error that names it, and it is neither replaced nor deleted.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.errors import CorruptCheckpointError, NewerFormatError
from kempnerforge.checkpoint.format import checksum

__all__ = [
    "READABLE_FORMATS",
    "FileRecord",
    "Head",
    "Manifest",
    "decode",
    "encode",
    "newer_format",
    "read_head",
    "require_same",
]

READABLE_FORMATS = (1, 2)
"""All formats that were ever written, the newest last.

1: every value is common to all ranks, except generators, dataloaders, buffers and some optimizers.
2: other values can be rank-local too; a reader of format 1 would take them for common ones.
"""

# The beginning and the end of an encoded manifest, without the content between them.
_BEGIN = re.compile(rb'\{"crc32":"([0-9a-f]{8})","manifest":', re.ASCII)
_END = re.compile(
    rb'"parent":(?:null|"([0-9a-f]{16})"),"save_id":"([0-9a-f]{16})","sequence":([0-9]+),'
    rb'"stages":(?:null|\[[0-9,]*\]),"step":([0-9]+),"tokens_seen":[0-9]+,"world_size":[0-9]+\}\}\n',
    re.ASCII,
)
_BETWEEN = re.compile(rb'\},"format":([12]),"layout":\{', re.ASCII)
_LONGEST_END = 1 << 12
_SAVE_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
# Foreign content can fail in any of these ways; unbounded nesting raises a RecursionError.
_NOT_A_MANIFEST = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Size in bytes and crc32 of one file, computed from the bytes passed to the kernel."""

    size: int
    crc32: int

    @staticmethod
    def of(data: bytes) -> "FileRecord":
        """Returns the record of a file with this content."""
        return FileRecord(size=len(data), crc32=checksum.crc32(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The part of a manifest that every format has; it suffices to order checkpoints."""

    format: int
    save_id: str
    step: int
    sequence: int
    parent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One committed save."""

    save_id: str
    """16 hexadecimal digits, unique to this save."""
    step: int
    tokens_seen: int
    sequence: int
    """Position in the order of commits in this directory, across restarts and rollbacks."""
    parent: str | None
    """Save id of the checkpoint that this run last saved or loaded; None at the start of a run."""
    world_size: int
    stages: tuple[int, ...] | None
    """Pipeline stages, or None for a checkpoint without stages."""
    layout: Mapping[str, Any]
    """How ranks and devices were arranged; see :mod:`kempnerforge.checkpoint.state.rank_state`."""
    files: Mapping[str, FileRecord]
    """Every file except the manifest, by path relative to the checkpoint."""
    has_rank_values: bool = False
    """Whether there are rank-local values that a reader of format 1 would not look for."""

    @property
    def head(self) -> Head:
        """The part that every format has."""
        return Head(
            format=_format_of(self),
            save_id=self.save_id,
            step=self.step,
            sequence=self.sequence,
            parent=self.parent,
        )


def _format_of(manifest: Manifest) -> int:
    """Returns the lowest format that can describe this manifest."""
    return 2 if manifest.has_rank_values else 1


def encode(manifest: Manifest) -> bytes:
    """Returns the manifest as it is written."""
    body = {
        "format": _format_of(manifest),
        "save_id": manifest.save_id,
        "step": manifest.step,
        "tokens_seen": manifest.tokens_seen,
        "sequence": manifest.sequence,
        "parent": manifest.parent,
        "world_size": manifest.world_size,
        "stages": None if manifest.stages is None else list(manifest.stages),
        "layout": dict(manifest.layout),
        "files": {
            name: {"size": record.size, "crc32": f"{record.crc32:08x}"}
            for name, record in manifest.files.items()
        },
    }
    return (
        _canonical({"manifest": body, "crc32": f"{checksum.crc32(_canonical(body)):08x}"}) + b"\n"
    )


def decode(data: bytes, *, where: str) -> Manifest:
    """Decodes a manifest.

    Args:
        data: Content of the file.
        where: Path to name in errors.

    Raises:
        CorruptCheckpointError: It is not a manifest, or was altered.
        NewerFormatError: It was written by a newer version of this package.
    """
    try:
        body = _checked_body(data, where=where)
        head = _head_of(body, where=where)
        if head.format not in READABLE_FORMATS:
            raise newer_format(head.format, where=where, step=head.step)
        return _from_body(body)
    except _NOT_A_MANIFEST as error:
        raise CorruptCheckpointError(f"{where}: not a manifest: {error}", path=where) from error


def read_head(data: bytes, *, where: str) -> Head:
    """Decodes only the head, which orders checkpoints, of a manifest of any format.

    The checksum of all bytes is verified, but in a readable format the list of files is not
    parsed: that takes milliseconds, and the head only microseconds.

    Raises:
        CorruptCheckpointError: It is not a manifest, or was altered.
        NewerFormatError: It has a newer format, and no head.
    """
    begin, end = _BEGIN.match(data), _END.search(data, max(0, len(data) - _LONGEST_END))
    between = _BETWEEN.findall(data)
    if begin and end and end.end() == len(data) and len(between) == 1:
        body = memoryview(data)[begin.end() : -2]
        if int(begin[1], 16) == checksum.crc32(body):
            return Head(
                format=int(between[0]),
                save_id=end[2].decode(),
                step=int(end[4]),
                sequence=int(end[3]),
                parent=None if end[1] is None else end[1].decode(),
            )
    try:
        return _head_of(_checked_body(data, where=where), where=where)
    except _NOT_A_MANIFEST as error:
        raise CorruptCheckpointError(f"{where}: not a manifest: {error}", path=where) from error


def newer_format(number: int, *, where: object, step: int | None = None) -> NewerFormatError:
    """Returns the error for a manifest whose format cannot be read."""
    return NewerFormatError(
        f"{where}: written by a newer version of this package, format {number}; this version reads "
        f"up to {READABLE_FORMATS[-1]}: use a newer version, or name another checkpoint",
        step=step,
        path=str(where),
    )


def _checked_body(data: bytes, *, where: str) -> Mapping[str, Any]:
    outer = json.loads(data)
    body: Mapping[str, Any] = outer["manifest"]
    intact = outer["crc32"] == f"{checksum.crc32(_canonical(body)):08x}"
    # In a format of which only the head is read, bytes besides the content do not matter.
    altered = data != _canonical(outer) + b"\n" and body["format"] in READABLE_FORMATS
    if not intact or altered:
        raise CorruptCheckpointError(f"{where}: the manifest was altered", path=where)
    return body


def _head_of(body: Mapping[str, Any], *, where: str) -> Head:
    number = _count(body["format"])
    newer = number > READABLE_FORMATS[-1]
    if not newer and number not in READABLE_FORMATS:
        raise ValueError(f"format {number} never existed")
    try:
        parent = body["parent"]
        return Head(
            format=number,
            save_id=_save_id(body["save_id"]),
            step=_count(body["step"]),
            sequence=_count(body["sequence"]),
            parent=None if parent is None else _save_id(parent),
        )
    except _NOT_A_MANIFEST as error:
        if newer:
            raise newer_format(number, where=where) from error
        raise


def _from_body(body: Mapping[str, Any]) -> Manifest:
    parent, stages = body["parent"], body["stages"]
    return Manifest(
        save_id=_save_id(body["save_id"]),
        step=_count(body["step"]),
        tokens_seen=_count(body["tokens_seen"]),
        sequence=_count(body["sequence"]),
        parent=None if parent is None else _save_id(parent),
        world_size=_count(body["world_size"]),
        stages=None if stages is None else tuple(map(_count, stages)),
        layout=dict(body["layout"]),
        files={
            _file_name(name): FileRecord(
                size=_count(record["size"]), crc32=int(record["crc32"], 16)
            )
            for name, record in body["files"].items()
        },
        has_rank_values=body["format"] == 2,
    )


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expected an integer of at least 0, found {value!r}")
    return value


def _save_id(value: str) -> str:
    if not _SAVE_ID.fullmatch(value):
        raise ValueError(f"{value!r} is not a save id")
    return value


def _file_name(name: str) -> str:
    """Checks that a path stays below the checkpoint; a valid checksum does not make it harmless."""
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts) or not name.isprintable():
        raise ValueError(f"{name!r} cannot be the name of a file in a checkpoint")
    return name


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def require_same(path: Path, name: str, found: FileRecord, expected: FileRecord) -> None:
    """Checks that a file of the checkpoint at ``path`` is as it was saved.

    Raises:
        CorruptCheckpointError: Its size or its checksum differs.
    """
    if found != expected:
        raise CorruptCheckpointError(
            f"{path / name}: content differs from what was saved (crc32 {found.crc32:08x} of "
            f"{found.size} bytes, the manifest says {expected.crc32:08x} of {expected.size})",
            path=str(path),
        )
