"""How much of a checkpoint is verified before it is loaded, and what need not be verified again.

A training loop resolves a path and then loads it, in one process. What the first of the two has
read and found intact, the second does not read again, as long as the file is the same: same save,
same name, size, inode and times of change. A file that changed within the last seconds before it
was verified is never remembered, because another change so soon could leave its times as they are.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kempnerforge.checkpoint.catalog import verify_checksums
from kempnerforge.checkpoint.manifest import FileRecord, Manifest
from kempnerforge.checkpoint.storage import Storage

__all__ = ["LoadReport", "VerifyPolicy", "verify_files"]

# Coarser than the time stamps of any file system in use (ext3, HFS+ and NFSv2: 1 s; FAT: 2 s).
_SETTLED_S = 3.0


class VerifyPolicy(StrEnum):
    """What is compared with the manifest before anything is loaded."""

    full = "full"
    """Size and checksum of every file; each rank reads a share of them."""
    sizes = "sizes"
    """That every file is there with its size."""
    off = "off"
    """Only that the manifest itself is intact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What the last ``load`` of a manager did; the same on every rank."""

    path: Path
    """The checkpoint that was loaded."""
    step: int
    passed_over: tuple[str, ...]
    """Name and problem of each newer candidate that could not be used; empty if the first was."""
    verified: VerifyPolicy
    """How its files were verified. A checkpoint without a manifest has no checksums: its shards
    were checked for presence and length only."""


_Signature = tuple[int, int, int, int, int]
_intact: dict[tuple[str, str, FileRecord], _Signature] = {}


def verify_files(
    path: Path, manifest: Manifest, files: Iterable[tuple[str, FileRecord]], storage: Storage
) -> None:
    """Read files of a checkpoint and compare them with its manifest, unless that is known.

    Raises:
        CorruptCheckpointError: One differs or cannot be read.
    """
    for name, record in files:
        key = (manifest.save_id, name, record)
        before = _signature(path / name)
        if before is not None and _intact.get(key) == before:
            continue
        verify_checksums(path, [(name, record)], storage)
        if before is not None and _settled(before) and _signature(path / name) == before:
            _intact[key] = before


def _signature(file: Path) -> _Signature | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _settled(signature: _Signature) -> bool:
    newest_s = max(signature[3:]) / 1e9
    return time.time() - newest_s > _SETTLED_S
