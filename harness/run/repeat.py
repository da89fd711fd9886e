"""Repeats recorded operations on a real file system, and cuts its power after the last of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from harness.content import Bytes, Content
from harness.evidence.cut import TreeListing, read_entries
from harness.evidence.operation import Operation
from harness.evidence.store import ByteStore, pwrite
from harness.run.disk import DiskImage
from harness.system.mounts import MountError, own_mounts
from harness.system.syscalls import EXCHANGE, renameat2, syncfs

RecordedRun = tuple[Sequence[Operation], Bytes]
"""The operations of one run, and the bytes of its writes."""


def leave(runs: Iterable[RecordedRun], *, filesystem: str, journal: str, base: Path) -> TreeListing:
    """Returns the contents of the disk if power is cut after the last operation. Raises MountError.

    `base` is the folder for the image meanwhile.
    """
    with tempfile.TemporaryDirectory(dir=base) as name, own_mounts():
        root = Path(name, "mounted")
        root.mkdir()
        disk = DiskImage(filesystem, Path(name, "image"), root)
        disk.format()
        disk.mount()
        try:
            for operations, written in runs:
                repeat(operations, written, root)
            disk.cut(journal)
            disk.restart()
            # What it holds outlives the disk, and its own name.
            left = ByteStore(Path(name, "left"))
            return TreeListing(entries=read_entries(root, left), written=left)
        finally:
            # The mount disappears with the namespace anyway; this only makes it sooner.
            with suppress(MountError):
                disk.unmount()


def repeat(operations: Iterable[Operation], written: Bytes, root: Path) -> None:
    """Repeat one run below `root`; close the files that it left open."""
    opened: dict[_File, int] = {}
    try:
        for operation in operations:
            if operation.error == 0:
                _do(operation, written, root, opened)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


_File = int | tuple[int, str]
"""An open file as the trace identifies it: by its number, or by rank and path."""


def _do(operation: Operation, written: Bytes, root: Path, opened: dict[_File, int]) -> None:
    path, number = root / operation.path, operation.opened
    file: _File = (operation.rank, operation.path) if number is None else number
    descriptor = opened.get(file)
    if operation.kind in _NAMES:
        _NAMES[operation.kind](path, operation.target or "", root)
    elif operation.kind == "open":
        if descriptor is not None:
            os.close(descriptor)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if operation.truncates else 0)
        opened[file] = os.open(path, flags)
    elif operation.kind == "write" and descriptor is not None:
        at = operation.offset
        for chunk in Content.of(written, operation.data or 0, operation.size).chunks():
            pwrite(descriptor, at, chunk)
            at += len(chunk)
    elif operation.kind == "truncate":
        os.truncate(path if descriptor is None else descriptor, operation.size)
    elif operation.kind == "fsync":
        own = os.open(path, os.O_RDONLY) if descriptor is None else descriptor
        os.fsync(own)
        if descriptor is None:
            os.close(own)


_NAMES: dict[str, Callable[[Path, str, Path], object]] = {
    "mkdir": lambda path, _target, _root: path.mkdir(),
    "rmdir": lambda path, _target, _root: path.rmdir(),
    "unlink": lambda path, _target, _root: path.unlink(),
    "symlink": lambda path, target, _root: path.symlink_to(target),
    "link": lambda path, target, root: os.link(path, root / target),
    "rename": lambda path, target, root: path.rename(root / target),
    "exchange": lambda path, target, root: renameat2(str(path), str(root / target), EXCHANGE),
    "sync": lambda _path, _target, root: syncfs(str(root)),
}
