"""A real ext4 on a loop device whose power can be cut, and a replay of operations on it.

FS_IOC_SHUTDOWN without a flush of the journal leaves what had been committed, as a power cut does.
The image is mounted without `auto_da_alloc`, which hides some missing syncs and is no promise, and
with a commit interval that keeps the background out of the way.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.naive_states import Tree
from harness.evidence.operation import Operation

_FS_IOC_SHUTDOWN = 0x8004587D
_WITHOUT_FLUSH = 2
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_IMAGE_BYTES = 64 << 20
_OPTIONS = "loop,noauto_da_alloc,commit=600"


class Unavailable(Exception):
    """Why this machine cannot mount an image."""


class Ext4:
    """An image and the place where it is mounted."""

    def __init__(self, folder: Path) -> None:
        self._image, self.root = folder / "image", folder / "mounted"
        self.root.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        _call("mkfs.ext4", "-q", "-F", str(self._image))

    def mount(self) -> None:
        """Mount it, replaying its journal."""
        _call("mount", "-o", _OPTIONS, str(self._image), str(self.root))

    def unmount(self) -> None:
        """Unmount it."""
        _call("umount", str(self.root))

    def cut(self) -> None:
        """Cut the power, and start again."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))
        finally:
            os.close(descriptor)
        self.unmount()
        self.mount()


@contextmanager
def mounted(folder: Path) -> Iterator[Ext4]:
    """A fresh file system, gone afterwards. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("mounting an image needs root")
    disk = Ext4(folder)
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()


def replay(operations: Iterable[Operation], written: bytes, root: Path) -> None:
    """Do on a real file system what a trace tells."""
    opened: dict[int, int] = {}
    try:
        for operation in operations:
            if operation.error == 0:
                _do(operation, written, root, opened)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def read_tree(root: Path) -> Tree:
    """What lies below a directory, less what the file system itself keeps there."""
    found: Tree = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if name == "lost+found":
            continue
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def _do(operation: Operation, written: bytes, root: Path, opened: dict[int, int]) -> None:
    path = root / operation.path
    descriptor = opened.get(operation.opened or 0)
    if operation.kind in _NAMES:
        _NAMES[operation.kind](path, operation.target or "", root)
    elif operation.kind == "open":
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if operation.truncates else 0)
        opened[operation.opened or 0] = os.open(path, flags)
    elif operation.kind == "write":
        assert descriptor is not None
        start = operation.data or 0
        os.pwrite(descriptor, written[start : start + operation.size], operation.offset)
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
    "rename": lambda path, target, root: path.rename(root / target),
    "exchange": lambda path, target, root: _exchange(path, root / target),
}


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = (os.fsencode(one), os.fsencode(other))
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2", str(one))


def _call(*arguments: str) -> None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Unavailable(f"{arguments[0]} is not there") from error
    if done.returncode:
        raise Unavailable(f"{arguments[0]}: {done.stderr.strip()}")
