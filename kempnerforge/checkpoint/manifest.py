"""The manifest: what a committed checkpoint consists of, and how that is recognised again.

It is the last file of a save, written once every other file is durable, and it is what makes a
directory a checkpoint of ours. Its encoding is canonical (sorted keys, no spaces) and carries its
own checksum, so any changed byte of it is noticed, and through it any changed byte of the rest.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kempnerforge.checkpoint.errors import CorruptCheckpointError

__all__ = ["FORMAT", "FileRecord", "Manifest", "decode", "encode"]

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Size in bytes and crc32 of one file, computed from what was handed to the kernel."""

    size: int
    crc32: int


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
    return _canonical({"manifest": body, "crc32": f"{zlib.crc32(_canonical(body)):08x}"}) + b"\n"


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
        intact = outer["crc32"] == f"{zlib.crc32(_canonical(body)):08x}"
        if not intact or data != _canonical(outer) + b"\n":
            raise CorruptCheckpointError(f"{where}: the manifest was altered", path=where)
        if body["format"] != FORMAT:
            raise CorruptCheckpointError(
                f"{where}: manifest format {body['format']}, this version reads {FORMAT}",
                path=where,
            )
        return _from_body(body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptCheckpointError(f"{where}: not a manifest: {error}", path=where) from error


def _from_body(body: Mapping[str, Any]) -> Manifest:
    return Manifest(
        save_id=body["save_id"],
        step=body["step"],
        tokens_seen=body["tokens_seen"],
        sequence=body["sequence"],
        parent=body["parent"],
        world_size=body["world_size"],
        stages=None if body["stages"] is None else tuple(body["stages"]),
        layout=body["layout"],
        files={
            name: FileRecord(size=record["size"], crc32=int(record["crc32"], 16))
            for name, record in body["files"].items()
        },
    )


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
