"""Carries out a rank's file-system calls in its place, one after the other.

The supervisor opens files itself and gives the rank a duplicate, so that both share one open file
description: a write by the supervisor also moves the rank's offset. Paths are resolved as the
calling thread sees them, and only calls below the watched directory are taken over; all others go
on to the kernel untouched. A read is left to the kernel as well, unless a strike needs to see it
first: then the supervisor opens files for reading, too, because the filter knows its descriptors.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.run import direct_write, reading
from harness.run.descriptors import Descriptors
from harness.run.large_write import LargeWrite, can_be_read
from harness.run.outside import Outside
from harness.run.request import Gift, Opened, Request
from harness.run.tree import WatchedTree, followed, signed
from harness.run.written import LARGE_BYTES, Inode, inode_at, inode_of
from harness.system.membership import process_of
from harness.system.memory import Span, first_bytes, read_bytes, read_path, read_vector
from harness.system.read_ahead import ReadAhead
from harness.system.seccomp import FIRST_DESCRIPTOR, Notification
from harness.system.syscalls import EXCHANGE, fsync, renameat2, syncfs

_AT_FDCWD = 0xFFFFFF9C
_AT_REMOVEDIR = 0x200
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_O_TMPFILE = getattr(os, "O_TMPFILE", 0o20200000)


def _refuse(number: int) -> Callable[[], int]:
    def perform() -> int:
        raise OSError(number, os.strerror(number))

    return perform


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    """An open for writing: which file, the name to record, and whose record it is, if it is one."""

    path: str
    name: str
    rank: int | None
    flags: int
    mode: int
    there: Inode | None
    """The file that is there already."""


@dataclass(slots=True)
class Performer:
    """Turns notifications into requests. `records` maps absolute paths to ranks.

    While `watches_reads` is set, each read of a file opened from now on is a request, too. `called`
    is the ranks' name for the root if they live in mounts of their own. If several performers serve
    one run, they share `serials`, which number the opened files, and `outside`.
    """

    root: str
    records: dict[str, int]
    watches_reads: bool = False
    called: str | None = None
    serials: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    outside: Outside = field(default_factory=lambda: Outside(""))
    _table: Descriptors = field(default_factory=Descriptors)
    _ahead: ReadAhead = field(default_factory=ReadAhead)
    _tree: WatchedTree = field(init=False)

    def __post_init__(self) -> None:
        self._tree = WatchedTree(self.root, self.called or self.root)

    def request(self, notification: Notification) -> Request | None:
        """Returns the request of a call; None if it does not concern the watched directory.

        Raises OSError if the calling thread is gone.
        """
        handler = _HANDLERS.get(notification.call)
        return handler(self, notification) if handler else None

    def close(self) -> None:
        """Close all of the supervisor's own descriptors."""
        self._ahead.close()
        self._table.close()

    def _named(self, notification: Notification, directory: int, pointer: int) -> str:
        text = read_path(notification.thread, pointer)
        return self._tree.absolute(notification.thread, directory, text)

    def _give(self, own: int, opened: Opened, *, close_on_exec: bool) -> Gift:
        number = self._table.add(opened)
        return Gift(own=own, number=number, close_on_exec=close_on_exec)

    # Opening.

    def _open_at(
        self, notification: Notification, directory: int, pointer: int, flags: int, mode: int
    ) -> Request | None:
        path = self._named(notification, directory, pointer)
        relative = self._tree.relative(path)
        rank = self.records.get(path)
        if relative is None and rank is None:
            if flags & _WRITING:
                self.outside.note(path)
            return None
        if not flags & _WRITING:
            return self._open_to_read(notification.thread, path, relative, flags)
        if flags & _O_TMPFILE == _O_TMPFILE:
            return Request(kind="refused", path=relative or path, perform=_refuse(errno.EOPNOTSUPP))
        path, there = followed(path)
        name = self._tree.relative(path) or path
        opening = _Opening(path=path, name=name, rank=rank, flags=flags, mode=mode, there=there)
        return self._open(opening, process_of(notification.thread))

    def _open(self, wanted: _Opening, process: int) -> Request:
        path, name, flags = wanted.path, wanted.name, wanted.flags
        serial = next(self.serials)

        def perform() -> Gift:
            if wanted.there is not None:
                self._table.let_go(inode_at(path))
            own = os.open(path, flags | os.O_CLOEXEC, wanted.mode)
            opened = Opened(
                own=own,
                path=name,
                record_of=wanted.rank,
                serial=serial,
                appends=bool(flags & os.O_APPEND),
                syncs=bool(flags & os.O_DSYNC),
                inode=inode_of(own),
                process=process,
            )
            return self._give(own, opened, close_on_exec=bool(flags & os.O_CLOEXEC))

        return Request(
            kind="open" if wanted.rank is None else "open_record",
            path=name,
            perform=perform,
            creates=bool(flags & os.O_CREAT) and wanted.there is None,
            truncates=bool(flags & os.O_TRUNC),
            changes=wanted.there if flags & os.O_TRUNC else None,
            record_of=wanted.rank,
            opened=serial,
        )

    def _open_to_read(self, thread: int, path: str, relative: str | None, flags: int) -> Request:
        if not self.watches_reads or relative is None or not reading.gives_file(path, flags):
            return reading.open_untouched(relative or path)
        serial = next(self.serials)
        opening = reading.Opening(path=path, name=relative, flags=flags, process=process_of(thread))
        return reading.open_watched(opening, serial=serial, give=self._give)

    def _openat(self, n: Notification) -> Request | None:
        directory, pointer, flags, mode, *_ = n.arguments
        return self._open_at(n, directory, pointer, flags & 0xFFFFFFFF, mode & 0o7777)

    def _plain_open(self, n: Notification) -> Request | None:
        pointer, flags, mode, *_ = n.arguments
        return self._open_at(n, _AT_FDCWD, pointer, flags & 0xFFFFFFFF, mode & 0o7777)

    def _creat(self, n: Notification) -> Request | None:
        pointer, mode, *_ = n.arguments
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        return self._open_at(n, _AT_FDCWD, pointer, flags, mode & 0o7777)

    # Reading and writing through a descriptor.

    def _opened(self, descriptor: int) -> Opened | None:
        return self._table.get(signed(descriptor))

    def _read(self, n: Notification) -> Request | None:
        opened = self._opened(n.arguments[0])
        return reading.read(opened) if opened is not None and opened.reads else None

    def _write_request(
        self, thread: int, opened: Opened, spans: Sequence[Span], position: int | None
    ) -> Request:
        own = opened.own
        size = spans[0][1] if len(spans) == 1 else sum([length for _, length in spans])
        offset = position
        if opened.appends:
            offset = os.fstat(
                own
            ).st_size  # also for pwrite: with O_APPEND Linux ignores its offset
        elif offset is None:
            offset = os.lseek(own, 0, os.SEEK_CUR)
        large, data = None, b""
        skew = direct_write.skew(spans) if direct_write.is_direct(own) else None
        if size >= LARGE_BYTES and opened.record_of is None and not skew and can_be_read(own):
            large = LargeWrite(
                thread=thread, spans=spans, own=own, position=position, ahead=self._ahead
            )
        else:
            parts = [read_bytes(thread, *span) for span in spans]
            data = parts[0] if len(parts) == 1 else b"".join(parts)

        def perform() -> int:
            placed = data if skew is None else direct_write.placed(data, skew)
            if position is None:
                return os.write(own, placed)
            return os.pwrite(own, placed, position)

        some = direct_write.half(size) if skew is not None else (size + 1) // 2

        def half() -> Request:
            return self._write_request(thread, opened, first_bytes(spans, some), position)

        return Request(
            kind="write" if opened.record_of is None else "record",
            path=opened.path,
            perform=large or perform,
            offset=offset,
            data=data,
            large=large,
            size=size,
            changes=opened.inode,
            record_of=opened.record_of,
            opened=opened.serial,
            syncs=opened.syncs,
            half=half if 0 < some < size else None,
        )

    def _write(self, n: Notification) -> Request | None:
        descriptor, address, size, *_ = n.arguments
        opened = self._opened(descriptor)
        if opened is None:
            return None
        return self._write_request(n.thread, opened, [(address, size)], None)

    def _pwrite(self, n: Notification) -> Request | None:
        descriptor, address, size, position, *_ = n.arguments
        opened = self._opened(descriptor)
        if opened is None:
            return None
        return self._write_request(n.thread, opened, [(address, size)], position)

    def _writev(self, n: Notification) -> Request | None:
        descriptor, address, count, position, *_ = n.arguments
        opened = self._opened(descriptor)
        if opened is None:
            return None
        at = None if n.call == "writev" or position == 0xFFFFFFFFFFFFFFFF else position
        return self._write_request(n.thread, opened, read_vector(n.thread, address, count), at)

    def _copying(self, n: Notification) -> Request | None:
        """In-kernel copies into a watched file are refused; every caller falls back to write."""
        output = n.arguments[0] if n.call == "sendfile" else n.arguments[2]
        opened = self._opened(output)
        if opened is None:
            return None
        return Request(kind="refused", path=opened.path, perform=_refuse(errno.EINVAL))

    def _ftruncate(self, n: Notification) -> Request | None:
        descriptor, size, *_ = n.arguments
        opened = self._opened(descriptor)
        if opened is None:
            return None
        own = opened.own

        def perform() -> int:
            os.ftruncate(own, size)
            return 0

        return Request(
            kind="truncate",
            path=opened.path,
            perform=perform,
            size=size,
            changes=opened.inode,
            opened=opened.serial,
        )

    def _fallocate(self, n: Notification) -> Request | None:
        descriptor, mode, offset, length, *_ = n.arguments
        opened = self._opened(descriptor)
        if opened is None:
            return None
        own = opened.own
        if mode != 0:
            return Request(kind="refused", path=opened.path, perform=_refuse(errno.EOPNOTSUPP))

        def perform() -> int:
            os.posix_fallocate(own, offset, length)
            return 0

        size = max(offset + length, os.fstat(own).st_size)
        return Request(
            kind="truncate", path=opened.path, perform=perform, size=size, opened=opened.serial
        )

    def _fsync(self, n: Notification) -> Request | None:
        descriptor = signed(n.arguments[0])
        opened = self._table.get(descriptor)
        if opened is not None:
            own = opened.own

            def perform() -> int:
                os.fsync(own)
                return 0

            serial = None if opened.reads else opened.serial
            return Request(kind="fsync", path=opened.path, perform=perform, opened=serial)
        path = self._tree.opened(n.thread, descriptor)
        relative = self._tree.relative(path)
        if relative is None:
            return None
        return Request(kind="fsync", path=relative, perform=lambda: fsync(path))

    def _duplicate(self, n: Notification) -> Request | None:
        opened = self._opened(n.arguments[0])
        if opened is None:
            return None
        own, found = opened.own, opened
        closing = n.call == "fcntl" and n.arguments[1] != 0

        def perform() -> Gift:
            return self._give(own, found, close_on_exec=closing)

        return Request(kind="duplicate", path=opened.path, perform=perform)

    def _duplicate_to(self, n: Notification) -> Request | None:
        """Handles dup2 and dup3: the caller chooses the number, and a low one is not watched."""
        opened = self._opened(n.arguments[0])
        if opened is None:
            return None
        number = signed(n.arguments[1])
        if number >= FIRST_DESCRIPTOR:
            self._table.put(number, opened)
            return None
        if opened.reads:
            return None
        return Request(kind="unseen", path=opened.path, perform=int, leave_to_kernel=True)

    def _mmap(self, n: Notification) -> Request | None:
        """A shared mapping that can be written to is refused: its writes are no calls."""
        opened = self._opened(n.arguments[4])
        if opened is None:
            return None
        return Request(kind="mapping", path=opened.path, perform=_refuse(errno.ENODEV))

    def _sync(self, n: Notification) -> Request | None:
        if n.call == "syncfs":
            path = self._tree.opened(n.thread, n.arguments[0])
            if self._tree.relative(path) is None:
                return None
        return Request(kind="sync", path=".", perform=lambda: syncfs(self.root))

    # Names.

    def _one_name(
        self, n: Notification, directory: int, pointer: int, kind: str, call: Callable[[str], None]
    ) -> Request | None:
        path = self._named(n, directory, pointer)
        relative = self._tree.relative(path)
        if relative is None:
            self.outside.note(path)
            return None

        def perform() -> int:
            call(path)
            return 0

        return Request(kind=kind, path=relative, perform=perform)

    def _mkdir(self, n: Notification) -> Request | None:
        directory, pointer, mode = _at(n, 2)
        return self._one_name(n, directory, pointer, "mkdir", lambda p: os.mkdir(p, mode & 0o7777))

    def _rmdir(self, n: Notification) -> Request | None:
        return self._one_name(n, _AT_FDCWD, n.arguments[0], "rmdir", os.rmdir)

    def _unlink(self, n: Notification) -> Request | None:
        directory, pointer, flags = _at(n, 2) if n.call == "unlinkat" else (*_at(n, 1), 0)
        if flags & _AT_REMOVEDIR:
            return self._one_name(n, directory, pointer, "rmdir", os.rmdir)
        return self._one_name(n, directory, pointer, "unlink", os.unlink)

    def _truncate(self, n: Notification) -> Request | None:
        pointer, size, *_ = n.arguments
        request = self._one_name(
            n, _AT_FDCWD, pointer, "truncate", lambda path: os.truncate(path, size)
        )
        if request is not None:
            request.size = size
            request.changes = inode_at(self._named(n, _AT_FDCWD, pointer))
        return request

    def _two_names(
        self, n: Notification, kind: str, names: tuple[str, str], call: Callable[[str, str], object]
    ) -> Request | None:
        source, target = names
        inside, into = self._tree.relative(source), self._tree.relative(target)
        if inside is None and into is None:
            self.outside.note(source)
            self.outside.note(target)
            return None
        if inside is None or into is None:
            # Only in the caller's own mounts are both names sure to be those that it means.
            names = (self._tree.theirs(n.thread, source), self._tree.theirs(n.thread, target))

        def perform() -> int:
            call(*names)
            return 0

        return Request(kind=kind, path=inside or source, target=into or target, perform=perform)

    def _rename(self, n: Notification) -> Request | None:
        if n.call == "rename":
            old, new, *_ = n.arguments
            old_at = new_at = _AT_FDCWD
            flags = 0
        else:
            old_at, old, new_at, new, flags = n.arguments[:5]
            flags = flags if n.call == "renameat2" else 0
        names = self._named(n, old_at, old), self._named(n, new_at, new)
        if flags:
            kind = "exchange" if flags & EXCHANGE else "rename"
            return self._two_names(
                n, kind, names, lambda source, target: renameat2(source, target, flags)
            )
        return self._two_names(n, "rename", names, os.rename)

    def _link(self, n: Notification) -> Request | None:
        if n.call == "link":
            old_at, old, new_at, new = _AT_FDCWD, n.arguments[0], _AT_FDCWD, n.arguments[1]
        else:
            old_at, old, new_at, new = n.arguments[:4]
        names = self._named(n, old_at, old), self._named(n, new_at, new)
        return self._two_names(n, "link", names, os.link)

    def _symlink(self, n: Notification) -> Request | None:
        if n.call == "symlink":
            text, directory, pointer = n.arguments[0], _AT_FDCWD, n.arguments[1]
        else:
            text, directory, pointer = n.arguments[:3]
        content = read_path(n.thread, text)
        request = self._one_name(
            n, directory, pointer, "symlink", lambda path: os.symlink(content, path)
        )
        if request is not None:
            request.target = content
        return request


def _at(n: Notification, count: int) -> tuple[int, ...]:
    """Returns the directory and `count` more arguments, of a call and of its `...at` form alike."""
    if n.call.endswith("at"):
        return n.arguments[: count + 1]
    return (_AT_FDCWD, *n.arguments[:count])


_HANDLERS: dict[str, Callable[[Performer, Notification], Request | None]] = {
    "openat": Performer._openat,
    "open": Performer._plain_open,
    "creat": Performer._creat,
    "read": Performer._read,
    "pread64": Performer._read,
    "readv": Performer._read,
    "preadv": Performer._read,
    "preadv2": Performer._read,
    "write": Performer._write,
    "pwrite64": Performer._pwrite,
    "writev": Performer._writev,
    "pwritev": Performer._writev,
    "pwritev2": Performer._writev,
    "sendfile": Performer._copying,
    "splice": Performer._copying,
    "copy_file_range": Performer._copying,
    "ftruncate": Performer._ftruncate,
    "fallocate": Performer._fallocate,
    "mmap": Performer._mmap,
    "fsync": Performer._fsync,
    "fdatasync": Performer._fsync,
    "dup": Performer._duplicate,
    "dup2": Performer._duplicate_to,
    "dup3": Performer._duplicate_to,
    "sync": Performer._sync,
    "syncfs": Performer._sync,
    "fcntl": Performer._duplicate,
    "mkdir": Performer._mkdir,
    "mkdirat": Performer._mkdir,
    "rmdir": Performer._rmdir,
    "unlink": Performer._unlink,
    "unlinkat": Performer._unlink,
    "truncate": Performer._truncate,
    "rename": Performer._rename,
    "renameat": Performer._rename,
    "renameat2": Performer._rename,
    "link": Performer._link,
    "linkat": Performer._link,
    "symlink": Performer._symlink,
    "symlinkat": Performer._symlink,
}
