"""Seccomp user notification by ctypes: the filter, and the listener that answers its calls.

The filter hands over to the supervisor every call that can change the file system, and no other:
opens that write or create, changes of names, and writes to descriptors that the supervisor itself
put in place (`FIRST_DESCRIPTOR` and above; a filter cannot see paths, but it can see numbers).
fsync is always handed over, because a directory is fsynced through a descriptor opened for reading.
Reads cost nothing unless a strike falls in the run's load: only then are opens for reading handed
over, and reads of descriptors that the supervisor put in place. Calls that cannot be watched are
refused, so that the caller takes another way: io_uring and openat2 answer ENOSYS, and a writable
shared mapping of a watched file is handed over, to be answered ENODEV.

Sources: seccomp_unotify(2), linux/seccomp.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from dataclasses import dataclass
from typing import NamedTuple

FIRST_DESCRIPTOR = 512

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 1 << 3
_FLAG_WAIT_KILLABLE_RECV = 1 << 5
_RECV = 0xC0502100
_SEND = 0xC0182101
_ADDFD = 0x40182103
_SET_FLAGS = 0x40082104
_SYNC_WAKE_UP = 1
_RESP_CONTINUE = 1
_ADDFD_SETFD = 1
_ADDFD_SEND = 2

_RET_ALLOW = 0x7FFF0000
_RET_NOTIFY = 0x7FC00000
_RET_ERRNO = 0x00050000

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PROT_WRITE = 2
NOTIFICATION = struct.Struct("=QI4xi12x6Q")
"""Its number, the thread, the call and its arguments; what lies between is not needed."""
_RESPONSE = struct.Struct("=QqiI")
_MAP_SHARED = 1
_F_DUPFD_CLOEXEC = 1030


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Constants of a processor: the audit number and the system-call numbers."""

    audit: int
    seccomp: int
    numbers: dict[str, int]


_X86_64 = Architecture(
    audit=0xC000003E,
    seccomp=317,
    numbers={
        "read": 0, "pread64": 17, "readv": 19, "preadv": 295, "preadv2": 327,
        "write": 1, "open": 2, "mmap": 9, "pwrite64": 18, "writev": 20, "dup": 32, "dup2": 33,
        "sendfile": 40, "fcntl": 72, "fsync": 74, "fdatasync": 75, "truncate": 76,
        "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86,
        "unlink": 87, "symlink": 88, "openat": 257, "mkdirat": 258, "unlinkat": 263,
        "renameat": 264, "linkat": 265, "symlinkat": 266, "splice": 275, "sync_file_range": 277,
        "fallocate": 285, "dup3": 292, "pwritev": 296, "renameat2": 316, "copy_file_range": 326,
        "pwritev2": 328, "io_uring_setup": 425, "openat2": 437, "sync": 162, "syncfs": 306,
    },
)  # fmt: skip
_AARCH64 = Architecture(
    audit=0xC00000B7,
    seccomp=277,
    numbers={
        "read": 63, "readv": 65, "pread64": 67, "preadv": 69, "preadv2": 286,
        "dup": 23, "dup3": 24, "fcntl": 25, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36,
        "linkat": 37, "renameat": 38, "truncate": 45, "ftruncate": 46, "fallocate": 47,
        "openat": 56, "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70, "sendfile": 71,
        "splice": 76, "fsync": 82, "fdatasync": 83, "sync_file_range": 84, "mmap": 222,
        "renameat2": 276, "copy_file_range": 285, "pwritev2": 287, "io_uring_setup": 425,
        "openat2": 437, "sync": 81, "syncfs": 267,
    },
)  # fmt: skip
_ARCHITECTURES = {"x86_64": _X86_64, "aarch64": _AARCH64}

_ALWAYS = (
    "fsync", "fdatasync", "sync", "syncfs", "truncate", "rename", "mkdir", "rmdir", "creat",
    "link", "unlink", "symlink", "mkdirat", "unlinkat", "renameat", "linkat", "symlinkat",
    "renameat2",
)  # fmt: skip
_REFUSED = ("io_uring_setup", "openat2")
_DESCRIPTOR_ARGUMENT = {
    "write": 0, "pwrite64": 0, "writev": 0, "pwritev": 0, "pwritev2": 0, "ftruncate": 0,
    "fallocate": 0, "dup": 0, "dup2": 0, "dup3": 0, "sendfile": 0, "splice": 2,
    "copy_file_range": 2,
}  # fmt: skip
_READING = ("read", "pread64", "readv", "preadv", "preadv2")
_FLAGS_ARGUMENT = {"open": 1, "openat": 2}


def architecture() -> Architecture | None:
    """Returns this machine's numbers, or None if they are not known."""
    return _ARCHITECTURES.get(platform.machine())


class _Instruction(NamedTuple):
    code: int
    true: int
    false: int
    value: int


def _load(offset: int) -> _Instruction:
    return _Instruction(0x20, 0, 0, offset)


def _argument(index: int) -> _Instruction:
    return _load(16 + 8 * index)


def _jump(code: int, value: int, *, true: int = 0, false: int = 0) -> _Instruction:
    return _Instruction(code, true, false, value)


_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45


def _answer(value: int) -> _Instruction:
    return _Instruction(0x06, 0, 0, value)


def _block(number: int, body: list[_Instruction]) -> list[_Instruction]:
    """Run `body` for one system call and skip it for the others."""
    return [_load(0), _jump(_EQUAL, number, false=len(body)), *body]


def _when_watched(argument: int) -> list[_Instruction]:
    return [
        _argument(argument),
        _jump(_AT_LEAST, FIRST_DESCRIPTOR, false=1),
        _answer(_RET_NOTIFY),
        _answer(_RET_ALLOW),
    ]


def _when_writing(argument: int) -> list[_Instruction]:
    return [
        _argument(argument),
        _jump(_ANY_BIT, _WRITING, false=1),
        _answer(_RET_NOTIFY),
        _answer(_RET_ALLOW),
    ]


def _shared_mapping() -> list[_Instruction]:
    """Hand over mmap of a watched descriptor that is both shared and writable."""
    return [
        _argument(4),
        _jump(_AT_LEAST, FIRST_DESCRIPTOR, false=6),
        _jump(_AT_LEAST, 0x80000000, true=5),
        _argument(2),
        _jump(_ANY_BIT, _PROT_WRITE, false=3),
        _argument(3),
        _jump(_ANY_BIT, _MAP_SHARED, false=1),
        _answer(_RET_NOTIFY),
        _answer(_RET_ALLOW),
    ]


def _duplicating_fcntl() -> list[_Instruction]:
    return [
        _argument(0),
        _jump(_AT_LEAST, FIRST_DESCRIPTOR, false=4),
        _argument(1),
        _jump(_EQUAL, fcntl.F_DUPFD, true=1),
        _jump(_EQUAL, _F_DUPFD_CLOEXEC, false=1),
        _answer(_RET_NOTIFY),
        _answer(_RET_ALLOW),
    ]


def build_filter(machine: Architecture, *, reads: bool) -> bytes:
    """Returns the filter's program. With `reads`, it hands over reads and opens for reading."""
    numbers = machine.numbers
    program = [
        _load(4),
        _jump(_EQUAL, machine.audit, true=1),
        _answer(_RET_ALLOW),
    ]
    for name in _ALWAYS:
        if name in numbers:
            program += _block(numbers[name], [_answer(_RET_NOTIFY)])
    for name in _REFUSED:
        program += _block(numbers[name], [_answer(_RET_ERRNO | errno.ENOSYS)])
    for name, argument in _FLAGS_ARGUMENT.items():
        if name in numbers:
            body = [_answer(_RET_NOTIFY)] if reads else _when_writing(argument)
            program += _block(numbers[name], body)
    for name, argument in _DESCRIPTOR_ARGUMENT.items():
        if name in numbers:
            program += _block(numbers[name], _when_watched(argument))
    for name in _READING if reads else ():
        program += _block(numbers[name], _when_watched(0))
    program += _block(numbers["mmap"], _shared_mapping())
    program += _block(numbers["fcntl"], _duplicating_fcntl())
    program.append(_answer(_RET_ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install_filter(*, reads: bool) -> int:
    """Put this process and all its future children under the filter; returns the listener.

    The process must have only one thread. The filter cannot be removed. Raises OSError if the
    kernel refuses (5.19 or newer is needed for WAIT_KILLABLE_RECV, without which a signal would
    repeat a call that was already performed).
    """
    machine = architecture()
    if machine is None:
        raise OSError(errno.ENOSYS, f"no system-call table for {platform.machine()}")
    code = build_filter(machine, reads=reads)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    listener: int = libc.syscall(
        machine.seccomp,
        _SECCOMP_SET_MODE_FILTER,
        _FLAG_NEW_LISTENER | _FLAG_WAIT_KILLABLE_RECV,
        ctypes.byref(program),
    )
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return listener


class Notification(NamedTuple):
    """One call that waits for an answer. `thread` is the kernel's id of the calling thread."""

    id: int
    thread: int
    call: str
    arguments: tuple[int, int, int, int, int, int]


class Listener:
    """The supervisor's end. Answering a call whose thread has died is not an error."""

    def __init__(self, descriptor: int) -> None:
        machine = architecture()
        if machine is None:
            raise OSError(errno.ENOSYS, f"no system-call table for {platform.machine()}")
        self.descriptor = descriptor
        self._names = {number: name for name, number in machine.numbers.items()}
        fcntl.ioctl(descriptor, _SET_FLAGS, _SYNC_WAKE_UP)

    def receive(self) -> Notification | None:
        """Returns the next waiting call; None if its thread died before it could be read."""
        buffer = bytearray(80)
        try:
            fcntl.ioctl(self.descriptor, _RECV, buffer)  # in place: the buffer is mutable
        except FileNotFoundError:
            return None
        told = NOTIFICATION.unpack(buffer)
        return Notification(told[0], told[1], self._names.get(told[2]) or str(told[2]), told[3:])

    def answer(self, notification: Notification, value: int) -> None:
        """Return `value` to the caller; a negative value is minus an errno."""
        if value < 0:
            self._send(_RESPONSE.pack(notification.id, 0, value, 0))
        else:
            self._send(_RESPONSE.pack(notification.id, value, 0, 0))

    def proceed(self, notification: Notification) -> None:
        """Let the kernel carry out the call unchanged."""
        self._send(_RESPONSE.pack(notification.id, 0, 0, _RESP_CONTINUE))

    def answer_with_descriptor(
        self, notification: Notification, own: int, *, number: int, close_on_exec: bool
    ) -> None:
        """Give the caller a duplicate of the supervisor's `own` descriptor as `number`."""
        flags = os.O_CLOEXEC if close_on_exec else 0
        request = struct.pack(
            "=QIIII", notification.id, _ADDFD_SETFD | _ADDFD_SEND, own, number, flags
        )
        try:
            fcntl.ioctl(self.descriptor, _ADDFD, request)
        except FileNotFoundError:
            return
        except OSError as error:
            self.answer(notification, -(error.errno or errno.EIO))

    def _send(self, response: bytes) -> None:
        try:
            fcntl.ioctl(self.descriptor, _SEND, response)
        except FileNotFoundError:
            return

    def close(self) -> None:
        """Close the listener; calls that still wait get ENOSYS."""
        os.close(self.descriptor)
