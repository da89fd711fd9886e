"""A private mount namespace for one thread, so that nothing stays mounted however it ends.

Mounts inside are visible to this thread and to processes that enter the namespace. The kernel
removes it, loop device and all, when the last of them is gone, even after SIGKILL. Needs root,
except for a bind in a process that may have a user namespace of its own.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.system.errors import HarnessError

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION = 0x20080522
_CLONE_NEWUTS = 0x04000000
_MS_REC = 0x4000
_MS_BIND = 0x1000
_MS_NOSUID_NODEV = 2 | 4
_MNT_DETACH = 2
_MS_PRIVATE = 1 << 18


class MountError(HarnessError):
    """This machine or container does not allow mounts."""


@contextmanager
def own_mounts() -> Iterator[str]:
    """Gives this thread its own mounts; yields the path by which others can enter them.

    Afterwards the thread has its old mounts, root and working directory back.
    """
    place = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/mnt"
    before = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (place, "/", ".")]
    try:
        take_own_mounts()
        try:
            yield place
        finally:
            _go_back(*before)
    finally:
        for descriptor in before:
            os.close(descriptor)


def take_own_mounts() -> None:
    """Gives this thread its own mounts for the rest of its life. Raises MountError."""
    _call("unshare", _CLONE_NEWNS)
    # Otherwise, mounts made here would also appear outside.
    _call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)


def show(source: str, place: str) -> None:
    """Gives this process, which has only one thread, its own mounts, in which a directory is shown
    at another place. Without root it gets a user namespace too, in which it is the same user and
    has no more privileges than before. Raises MountError.
    """
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        take_own_mounts()
        bind(source, place)
        return
    _call("unshare", _CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),  # without which the kernel refuses the map of the group
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        try:
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
        except OSError as error:
            raise MountError(f"{name}: {error.strerror}") from error
    take_own_mounts()
    bind(source, place)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _call("capset", header, bytes(24))


def take_own_name() -> None:
    """Gives this process its own host name, which it can change. Raises MountError."""
    _call("unshare", _CLONE_NEWUTS)


def enter_mounts(place: str) -> None:
    """Enters the mounts of another thread; only for a process with a single thread."""
    here = os.getcwd()
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", descriptor, _CLONE_NEWNS)
    finally:
        os.close(descriptor)
    os.chdir(here)


def mount(source: str, place: str, kind: str, options: str) -> None:
    """Mounts a file system in this thread's mounts. Raises MountError."""
    texts = [text.encode() for text in (source, place, kind, options)]
    _call("mount", *texts[:3], ctypes.c_ulong(_MS_NOSUID_NODEV), texts[3])


def bind(source: str, place: str) -> None:
    """Shows a directory, with what is mounted below it, or a file at another place. Raises
    MountError."""
    texts = [text.encode() for text in (source, place)]
    _call("mount", *texts, None, ctypes.c_ulong(_MS_BIND | _MS_REC), None)


def unmount(place: str) -> None:
    """Unmounts lazily: the name is free at once, the rest with its last user. Raises MountError."""
    _call("umount2", place.encode(), _MNT_DETACH)


def _go_back(mounts: int, root: int, directory: int) -> None:
    _call("setns", mounts, _CLONE_NEWNS)
    # setns leaves the thread at the root of the namespace, even if it lived in a chroot.
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(directory)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise MountError(f"{name}: {os.strerror(number)}")
