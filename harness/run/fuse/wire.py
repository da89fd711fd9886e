"""The messages of the FUSE protocol, version 7.31, as in `include/uapi/linux/fuse.h`.

A request is a header, a structure specific to its operation, and names that end with a zero byte.
An answer is a header with an error, and the operation's result.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from enum import IntEnum

MAJOR, MINOR = 7, 31
MOST_BYTES = 1 << 20
"""Of one write; a request can take this much, the header and one page more."""
REQUEST_BYTES = MOST_BYTES + 8192
ROOT_ID = 1

ATOMIC_O_TRUNC, BIG_WRITES, FLOCK_LOCKS = 1 << 3, 1 << 5, 1 << 10
PARALLEL_DIROPS, MAX_PAGES = 1 << 18, 1 << 22

SET_MODE, SET_UID, SET_GID, SET_SIZE = 1, 2, 4, 8
SET_ATIME, SET_MTIME = 16, 32
FSYNC_DATA_ONLY = 1


class Call(IntEnum):
    """The operations that are answered; the kernel gets ENOSYS for others."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    SETLK = 32
    SETLKW = 33
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    RENAME2 = 45


HEADER = struct.Struct("<IIQQIIIHH")
ANSWER = struct.Struct("<IiQ")
INIT_IN = struct.Struct("<IIII")
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
SETATTR_IN = struct.Struct("<IIQQQQQQIIIIIIII")
OPEN_OUT = struct.Struct("<QII")
TRANSFER_IN = struct.Struct("<QQIIQII")
WRITE_OUT = struct.Struct("<II")
STATFS_OUT = struct.Struct("<QQQQQIIII24x")
DIRENT = struct.Struct("<QQII")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_VALIDITY = struct.Struct("<QII")
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request. `body` is what follows the header."""

    call: int
    unique: int
    node: int
    uid: int
    gid: int
    body: memoryview

    def numbers(self, form: str) -> tuple[int, ...]:
        """Returns the structure at the beginning of the body, with fields of these sizes."""
        found: tuple[int, ...] = struct.unpack_from(f"<{form}", self.body)
        return found

    def names(self, skip: int) -> list[str]:
        """Returns the names that follow the first `skip` bytes of the body."""
        parts = bytes(self.body[skip:]).split(b"\0")
        return [os.fsdecode(part) for part in parts[:-1]]


def parse(buffer: memoryview, size: int) -> Message:
    """Returns the request that was read into a buffer."""
    _, call, unique, node, uid, gid, _, _, _ = HEADER.unpack_from(buffer)
    return Message(
        call=call,
        unique=unique,
        node=node,
        uid=uid,
        gid=gid,
        body=buffer[HEADER.size : size],
    )


def attributes(status: os.stat_result) -> bytes:
    """Encodes the attributes of a stat for an answer."""
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    return _ATTRIBUTES.pack(
        status.st_ino,
        status.st_size,
        status.st_blocks,
        *(ns // _NS for ns in times),
        *(ns % _NS for ns in times),
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        status.st_blksize,
        0,
    )


def attributes_out(status: os.stat_result, valid_s: float) -> bytes:
    """Encodes attributes that are valid for some seconds."""
    return _VALIDITY.pack(*_split(valid_s), 0) + attributes(status)


def entry_out(node: int, status: os.stat_result, valid_s: float) -> bytes:
    """Encodes a name that leads to a node."""
    seconds, ns = _split(valid_s)
    return _ENTRY.pack(node, 0, seconds, seconds, ns, ns) + attributes(status)


def absent_out(valid_s: float) -> bytes:
    """Encodes a name that does not exist, which the kernel can cache for some seconds."""
    seconds, ns = _split(valid_s)
    return _ENTRY.pack(0, 0, seconds, seconds, ns, ns) + bytes(_ATTRIBUTES.size)


def directory_entry(inode: int, place: int, name: str, mode: int) -> bytes:
    """Encodes one name of a listing; `place` is where a reader continues after it."""
    raw = os.fsencode(name)
    entry = DIRENT.pack(inode, place, len(raw), mode >> 12) + raw
    return entry + bytes(-len(entry) % 8)


def _split(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * _NS)
