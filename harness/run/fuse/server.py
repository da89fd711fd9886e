"""Answers one mount's requests from the directory below it, one after the other.

`behaviour.py` defines how the mount differs from that directory. Errors of the file system below
are passed on unchanged.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.run.fuse import wire
from harness.run.fuse.behaviour import Behaviour
from harness.run.fuse.nodes import FileNode, Nodes
from harness.run.fuse.wire import Call, Message
from harness.system.syscalls import EXCHANGE, renameat2

_GONE = (errno.ENODEV,)
_RETRY = (errno.ENOENT, errno.EINTR, errno.EAGAIN)
_BLOCK = 512
"""The alignment of size and offset of a direct write."""
_DROPPED = os.O_DIRECT | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_APPEND


@dataclass(slots=True, kw_only=True)
class _Handle:
    """An open file or directory. `entries` are those of a directory when it was opened."""

    own: int
    node: FileNode
    direct: bool = False
    writes: bool = False
    entries: list[tuple[str, int, int]] = field(default_factory=list)


def _refuse(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Server:
    """One mount of the directory `below`; `device` is its open /dev/fuse."""

    def __init__(self, device: int, below: str, behaviour: Behaviour) -> None:
        self._device, self._behaviour = device, behaviour
        self._nodes = Nodes(behaviour=behaviour)
        self._nodes.add_root(below)
        self._handles: dict[int, _Handle] = {}
        self._next_handle = 1
        self._buffer = memoryview(bytearray(wire.REQUEST_BYTES))

    def serve(self) -> None:
        """Answer until the file system is unmounted."""
        os.umask(0)  # the kernel has applied that of the caller
        while True:
            try:
                size = os.readv(self._device, [self._buffer])
            except OSError as error:
                if error.errno in _GONE:
                    return
                if error.errno in _RETRY:
                    continue
                raise
            self._answer(wire.parse(self._buffer, size))

    def _answer(self, message: Message) -> None:
        handler = _HANDLERS.get(message.call)
        try:
            if handler is None:
                raise _refuse(errno.ENOSYS)
            found, problem = handler(self, message), 0
        except OSError as error:
            found, problem = b"", error.errno or errno.EIO
        except Exception:  # noqa: BLE001 - a caller without an answer would wait forever
            traceback.print_exc()
            found, problem = b"", errno.EIO
        if found is None:
            return
        size = wire.ANSWER.size + len(found)
        try:
            os.writev(self._device, [wire.ANSWER.pack(size, -problem, message.unique), found])
        except FileNotFoundError:
            return  # the caller was interrupted, and does not wait any more

    def _node(self, message: Message) -> FileNode:
        node = self._nodes.by_number.get(message.node)
        if node is None:
            raise _refuse(errno.ESTALE)
        return node

    def _entry(self, node: FileNode) -> bytes:
        status = self._nodes.attributes(node)
        node.held += 1
        return wire.entry_out(node.number, status, self._behaviour.cache_s)

    # The mount.

    def _init(self, message: Message) -> bytes:
        _, minor, readahead, offered = wire.INIT_IN.unpack_from(message.body)
        wanted = wire.ATOMIC_O_TRUNC | wire.BIG_WRITES | wire.PARALLEL_DIROPS | wire.MAX_PAGES
        if self._behaviour.flock == "refused":
            wanted |= wire.FLOCK_LOCKS
        return wire.INIT_OUT.pack(
            wire.MAJOR,
            min(minor, wire.MINOR),
            readahead,
            offered & wanted,
            16,
            12,
            wire.MOST_BYTES,
            1,
            wire.MOST_BYTES // os.sysconf("SC_PAGE_SIZE"),
            0,
            0,
        )

    def _statfs(self, message: Message) -> bytes:
        found = os.statvfs(self._node(message).path)
        return wire.STATFS_OUT.pack(
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_bsize,
            found.f_namemax,
            found.f_frsize,
            0,
        )

    def _nothing(self, _: Message) -> bytes:
        return b""

    def _unanswered(self, _: Message) -> None:
        return None

    # Names.

    def _lookup(self, message: Message) -> bytes:
        (name,) = message.names(0)
        try:
            return self._entry(self._nodes.find(self._node(message), name))
        except FileNotFoundError:
            if self._behaviour.cache_s:
                return wire.absent_out(self._behaviour.cache_s)
            raise

    def _forget(self, message: Message) -> None:
        (times,) = message.numbers("Q")
        self._forget_one(message.node, times)

    def _forget_many(self, message: Message) -> None:
        count, _ = message.numbers("II")
        pairs = message.numbers(f"8x{2 * count}Q")
        for number, times in zip(pairs[::2], pairs[1::2], strict=True):
            self._forget_one(number, times)

    def _forget_one(self, number: int, times: int) -> None:
        node = self._nodes.by_number.get(number)
        if node is not None:
            self._nodes.forget(node, times)

    def _given(self, message: Message, name: str) -> bytes:
        """Answers a request that created a name; the file belongs to the caller."""
        directory = self._node(message)
        if (message.uid, message.gid) != (0, 0):
            owner = (message.uid, message.gid)
            os.chown(name, *owner, dir_fd=directory.own, follow_symlinks=False)
        self._nodes.changed(directory, name)
        return self._entry(self._nodes.find(directory, name))

    def _mkdir(self, message: Message) -> bytes:
        mode, _ = message.numbers("II")
        (name,) = message.names(8)
        os.mkdir(name, mode & 0o7777, dir_fd=self._node(message).own)
        return self._given(message, name)

    def _mknod(self, message: Message) -> bytes:
        mode, device, _, _ = message.numbers("IIII")
        (name,) = message.names(16)
        os.mknod(name, mode, device, dir_fd=self._node(message).own)
        return self._given(message, name)

    def _symlink(self, message: Message) -> bytes:
        if not self._behaviour.symlinks:
            raise _refuse(errno.EPERM)
        name, text = message.names(0)
        os.symlink(text, name, dir_fd=self._node(message).own)
        return self._given(message, name)

    def _link(self, message: Message) -> bytes:
        (number,) = message.numbers("Q")
        (name,) = message.names(8)
        if not self._behaviour.follows_links:
            raise _refuse(errno.EPERM)  # another name would reveal the link's new text
        old = self._nodes.by_number[number]
        os.link(old.path, name, dst_dir_fd=self._node(message).own)
        return self._given(message, name)

    def _unlink(self, message: Message) -> bytes:
        (name,), directory = message.names(0), self._node(message)
        os.unlink(name, dir_fd=directory.own)
        self._nodes.unlinked(directory, name)
        self._nodes.changed(directory)
        return b""

    def _rmdir(self, message: Message) -> bytes:
        (name,), directory = message.names(0), self._node(message)
        os.rmdir(name, dir_fd=directory.own)
        self._nodes.changed(directory)
        return b""

    def _rename(self, message: Message) -> bytes:
        (number,) = message.numbers("Q")
        return self._move(message, number, message.names(8), flags=0)

    def _rename2(self, message: Message) -> bytes:
        number, flags, _ = message.numbers("QII")
        return self._move(message, number, message.names(16), flags=flags)

    def _move(self, message: Message, number: int, names: list[str], *, flags: int) -> bytes:
        here, there = self._node(message), self._nodes.by_number[number]
        old, new = names
        if flags & EXCHANGE and not self._behaviour.exchange:
            raise _refuse(errno.EINVAL)
        moved = os.stat(old, dir_fd=here.own, follow_symlinks=False)
        if not self._behaviour.directory_renames and moved.st_mode >> 12 == 0o4:
            raise _refuse(errno.EXDEV)
        if flags:
            renameat2(f"{here.path}/{old}", f"{there.path}/{new}", flags)
        else:
            os.rename(old, new, src_dir_fd=here.own, dst_dir_fd=there.own)
        self._nodes.changed(here, *([old] if flags & EXCHANGE else []))
        self._nodes.changed(there, new)
        return b""

    # Attributes.

    def _getattr(self, message: Message) -> bytes:
        status = self._nodes.attributes(self._node(message))
        return wire.attributes_out(status, self._behaviour.cache_s)

    def _setattr(self, message: Message) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = (
            wire.SETATTR_IN.unpack_from(message.body)
        )
        node = self._node(message)
        if valid & wire.SET_MODE:
            os.chmod(node.path, mode & 0o7777)
        if valid & (wire.SET_UID | wire.SET_GID):
            owner = uid if valid & wire.SET_UID else -1
            os.chown(node.path, owner, gid if valid & wire.SET_GID else -1)
        if valid & wire.SET_SIZE:
            os.truncate(node.path, size)
        if valid & (wire.SET_ATIME | wire.SET_MTIME):
            now, wanted = node.status(), 1_000_000_000
            times = [now.st_atime_ns, now.st_mtime_ns]
            if valid & wire.SET_ATIME:
                times[0] = atime * wanted + atime_ns
            if valid & wire.SET_MTIME:
                times[1] = mtime * wanted + mtime_ns
            os.utime(node.path, ns=(times[0], times[1]))
        node.attributes = None
        return self._getattr(message)

    def _readlink(self, message: Message) -> bytes:
        return os.fsencode(self._nodes.text(self._node(message)))

    def _setxattr(self, message: Message) -> bytes:
        _, flags = message.numbers("II")
        (name, _), value = message.body[8:].tobytes().split(b"\0", 1), b""
        value = bytes(message.body[8 + len(name) + 1 :])
        os.setxattr(self._node(message).path, name, value, flags)
        return b""

    def _getxattr(self, message: Message) -> bytes:
        (name,) = message.names(8)
        return self._sized(message, os.getxattr(self._node(message).path, name))

    def _listxattr(self, message: Message) -> bytes:
        names = os.listxattr(self._node(message).path)
        return self._sized(message, b"".join(os.fsencode(name) + b"\0" for name in names))

    def _sized(self, message: Message, value: bytes) -> bytes:
        """Returns a value, or only its size if the caller asks for that."""
        size, _ = message.numbers("II")
        if size == 0:
            return wire.WRITE_OUT.pack(len(value), 0)
        if size < len(value):
            raise _refuse(errno.ERANGE)
        return value

    def _removexattr(self, message: Message) -> bytes:
        (name,) = message.names(0)
        os.removexattr(self._node(message).path, name)
        return b""

    # Open files.

    def _handle(self, message: Message) -> _Handle:
        return self._handles[message.numbers("Q")[0]]

    def _give(self, own: int, node: FileNode, flags: int) -> bytes:
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        kept = self._behaviour.direct == "kept" and bool(flags & os.O_DIRECT)
        number, self._next_handle = self._next_handle, self._next_handle + 1
        self._handles[number] = _Handle(own=own, node=node, direct=kept, writes=writes)
        node.writers += writes
        if writes:
            node.attributes = None
        return wire.OPEN_OUT.pack(number, 0, 0)

    def _check_direct(self, flags: int) -> None:
        if flags & os.O_DIRECT and self._behaviour.direct == "refused":
            raise _refuse(errno.EINVAL)

    def _open(self, message: Message) -> bytes:
        flags, _ = message.numbers("II")
        self._check_direct(flags)
        node = self._node(message)
        return self._give(os.open(node.path, flags & ~_DROPPED | os.O_CLOEXEC), node, flags)

    def _create(self, message: Message) -> bytes:
        flags, mode, _, _ = message.numbers("IIII")
        (name,) = message.names(16)
        self._check_direct(flags)
        directory = self._node(message)
        kept = flags & ~(_DROPPED & ~os.O_EXCL) | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        own = os.open(name, kept, mode & 0o7777, dir_fd=directory.own)
        entry = self._given(message, name)
        node = self._nodes.find(directory, name)
        return entry + self._give(own, node, flags)

    def _read(self, message: Message) -> bytes:
        _, offset, size, *_ = wire.TRANSFER_IN.unpack_from(message.body)
        return os.pread(self._handle(message).own, size, offset)

    def _write(self, message: Message) -> bytes:
        _, offset, size, *_ = wire.TRANSFER_IN.unpack_from(message.body)
        handle = self._handle(message)
        if handle.direct and (offset % _BLOCK or size % _BLOCK):
            raise _refuse(errno.EINVAL)
        place = wire.TRANSFER_IN.size
        written = os.pwrite(handle.own, message.body[place : place + size], offset)
        return wire.WRITE_OUT.pack(written, 0)

    def _fsync(self, message: Message) -> bytes:
        _, flags, _ = message.numbers("QII")
        own = self._handle(message).own
        (os.fdatasync if flags & wire.FSYNC_DATA_ONLY else os.fsync)(own)
        return b""

    def _fallocate(self, message: Message) -> bytes:
        _, offset, length, mode, _ = message.numbers("QQQII")
        if mode:
            raise _refuse(errno.EOPNOTSUPP)
        os.posix_fallocate(self._handle(message).own, offset, length)
        return b""

    def _setlk(self, _: Message) -> bytes:
        """Called only if the kernel does not keep the locks of this mount itself."""
        raise _refuse(errno.ENOSYS)

    def _release(self, message: Message) -> bytes:
        handle = self._handles.pop(message.numbers("Q")[0])
        handle.node.writers -= handle.writes
        os.close(handle.own)
        return b""

    def _opendir(self, message: Message) -> bytes:
        node = self._node(message)
        own = os.open(node.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        found = self._give(own, node, os.O_RDONLY)
        self._handles[self._next_handle - 1].entries = self._nodes.listing(node)
        return found

    def _readdir(self, message: Message) -> bytes:
        _, first, size, *_ = wire.TRANSFER_IN.unpack_from(message.body)
        handle, found = self._handle(message), bytearray()
        if first == 0:
            handle.entries = self._nodes.listing(handle.node)
        for place, (name, inode, mode) in enumerate(handle.entries[first:], first + 1):
            entry = wire.directory_entry(inode, place, name, mode)
            if len(found) + len(entry) > size:
                break
            found += entry
        return bytes(found)


_HANDLERS: dict[int, Callable[[Server, Message], bytes | None]] = {
    Call.LOOKUP: Server._lookup,
    Call.FORGET: Server._forget,
    Call.GETATTR: Server._getattr,
    Call.SETATTR: Server._setattr,
    Call.READLINK: Server._readlink,
    Call.SYMLINK: Server._symlink,
    Call.MKNOD: Server._mknod,
    Call.MKDIR: Server._mkdir,
    Call.UNLINK: Server._unlink,
    Call.RMDIR: Server._rmdir,
    Call.RENAME: Server._rename,
    Call.LINK: Server._link,
    Call.OPEN: Server._open,
    Call.READ: Server._read,
    Call.WRITE: Server._write,
    Call.STATFS: Server._statfs,
    Call.RELEASE: Server._release,
    Call.FSYNC: Server._fsync,
    Call.SETXATTR: Server._setxattr,
    Call.GETXATTR: Server._getxattr,
    Call.LISTXATTR: Server._listxattr,
    Call.REMOVEXATTR: Server._removexattr,
    Call.FLUSH: Server._nothing,
    Call.INIT: Server._init,
    Call.OPENDIR: Server._opendir,
    Call.READDIR: Server._readdir,
    Call.RELEASEDIR: Server._release,
    Call.FSYNCDIR: Server._fsync,
    Call.SETLK: Server._setlk,
    Call.SETLKW: Server._setlk,
    Call.CREATE: Server._create,
    Call.INTERRUPT: Server._unanswered,
    Call.DESTROY: Server._nothing,
    Call.BATCH_FORGET: Server._forget_many,
    Call.FALLOCATE: Server._fallocate,
    Call.RENAME2: Server._rename2,
}
