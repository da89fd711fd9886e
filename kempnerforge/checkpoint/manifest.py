"""The manifest: what a committed checkpoint consists of, and how that is recognised again.

It is the last file of a save, written once every other file is durable, and it is what makes a
directory a checkpoint of ours. Its encoding is canonical (sorted keys, no spaces) and carries its
own checksum, so any changed byte of it is noticed, and through it any changed byte of the rest.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zlib_ng import zlib_ng

from kempnerforge.checkpoint.errors import CorruptCheckpointError

__all__ = ["FORMAT", "FileRecord", "Manifest", "decode", "encode"]

FORMAT = 1

_SAVE_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
# Content that was never ours fails in any of these ways; nesting without end is a RecursionError.
_NOT_A_MANIFEST = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Size in bytes and crc32 of one file, computed from what was handed to the kernel."""

    size: int
    crc32: int

    @staticmethod
    def of(data: bytes) -> "FileRecord":
        """The record of a file with this content."""
        return FileRecord(size=len(data), crc32=zlib_ng.crc32(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One committed save."""

    save_id: str
    """16 hexadecimal digits, unique to this save."""
    step: int
    tokens_seen: int
    sequence: int
    """Position in the order of commits in this directory, over restarts and rollbacks."""
    parent: str | None
    """Save id of the checkpoint that this run last saved or loaded; None at the start of a run."""
    world_size: int
    stages: tuple[int, ...] | None
    """Pipeline stages, or None for a checkpoint without stages."""
    layout: Mapping[str, Any]
    """How ranks and devices were arranged; see :mod:`kempnerforge.checkpoint.rank_state`."""
    files: Mapping[str, FileRecord]
    """Every file but the manifest, by path relative to the checkpoint."""


def encode(manifest: Manifest) -> bytes:
    """The manifest as it is written."""
    body = {
        "format": FORMAT,
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
    return _canonical({"manifest": body, "crc32": f"{zlib_ng.crc32(_canonical(body)):08x}"}) + b"\n"


def decode(data: bytes, *, where: str) -> Manifest:
    """Read a manifest.

    Args:
        data: Content of the file.
        where: Path to name in errors.

    Raises:
        CorruptCheckpointError: Not a manifest, altered, or of a newer format.
    """
    try:
        outer = json.loads(data)
        body = outer["manifest"]
        intact = outer["crc32"] == f"{zlib_ng.crc32(_canonical(body)):08x}"
        if not intact or data != _canonical(outer) + b"\n":
            raise CorruptCheckpointError(f"{where}: the manifest was altered", path=where)
        if body["format"] != FORMAT:
            raise CorruptCheckpointError(
                f"{where}: manifest format {body['format']}, this version reads {FORMAT}",
                path=where,
            )
        return _from_body(body)
    except _NOT_A_MANIFEST as error:
        raise CorruptCheckpointError(f"{where}: not a manifest: {error}", path=where) from error


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
    )


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a number from 0 was expected, found {value!r}")
    return value


def _save_id(value: str) -> str:
    if not _SAVE_ID.fullmatch(value):
        raise ValueError(f"{value!r} is no save id")
    return value


def _file_name(name: str) -> str:
    """A path below the checkpoint; a checksum proves no good will, so a name may not lead out."""
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts) or not name.isprintable():
        raise ValueError(f"{name!r} is no name of a file of a checkpoint")
    return name


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
