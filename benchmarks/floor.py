"""The floor of interception on this machine: the least that any supervisor has to spend.

    python -m benchmarks.floor

A bare notification: a rank's write that the kernel hands over and that is answered at once, without
a look at it. A write in the rank's place: its bytes are also read from the rank and written to a
file, and nothing is recorded, which is the least that a supervisor in Python does. A copy: as many
bytes written to a new file by one process, a chunk at a time.
"""

from __future__ import annotations

import fcntl
import os
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness.content import CHUNK_BYTES
from harness.system.memory import read_bytes
from harness.system.seccomp import FIRST_DESCRIPTOR, NOTIFICATION, Listener, install_filter

_CALLS = 5000
_SIZE = 100
_RECEIVE = 0xC0502100
_SEND = 0xC0182101
_ID = struct.Struct("=Q")
_ANSWER = struct.Struct("=QqiI")


Handler = Callable[[bytearray], int]
"""Carries out a call, or only pretends to, and returns its result."""


def notification_us(repeat: int = 5) -> tuple[float, float]:
    """A bare notification: the caller's time, and the answering process's CPU time; medians."""
    return _median_us(lambda _: _SIZE, repeat)


def write_us(repeat: int = 5) -> tuple[float, float]:
    """A write in the rank's place: the same two times."""
    own = os.memfd_create("written")
    try:
        return _median_us(partial(_write, own), repeat)
    finally:
        os.close(own)


def _write(own: int, call: bytearray) -> int:
    _, thread, _, _, address, size, *_ = NOTIFICATION.unpack(call)
    return os.write(own, read_bytes(thread, address, size))


def _median_us(handle: Handler, repeat: int) -> tuple[float, float]:
    found = [_notifications(handle) for _ in range(repeat)]
    wall, own = (statistics.median(values) for values in zip(*found, strict=True))
    return wall, own


def copy_s(size: int, place: str | None = None, repeat: int = 3) -> float:
    """A copy of so many bytes into a new file in a directory; the median."""
    data = bytes(range(256)) * (CHUNK_BYTES // 256)
    times = []
    for _ in range(repeat):
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            began = time.perf_counter()
            for start in range(0, size, CHUNK_BYTES):
                file.write(memoryview(data)[: size - start])
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _notifications(handle: Handler) -> tuple[float, float]:
    here, there = socket.socketpair()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        here.close()
        _call(there, writer)
        os._exit(0)
    there.close()
    os.close(writer)
    _, descriptors, _, _ = socket.recv_fds(here, 1, 1)
    own = _answer(Listener(descriptors[0]), handle)
    os.waitpid(pid, 0)
    here.close()
    answer = os.read(reader, 100)
    os.close(reader)
    return 1e6 * float(answer) / _CALLS, 1e6 * own / _CALLS


def _call(there: socket.socket, writer: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    fcntl.fcntl(null, fcntl.F_DUPFD, FIRST_DESCRIPTOR)
    listener = install_filter(reads=False)
    socket.send_fds(there, [b"\0"], [listener])
    os.close(listener)
    data = bytes(_SIZE)
    began = time.perf_counter()
    for _ in range(_CALLS):
        os.write(FIRST_DESCRIPTOR, data)
    os.write(writer, repr(time.perf_counter() - began).encode())


def _answer(listener: Listener, handle: Handler) -> float:
    """Answer until the caller has ended; the processor time that it took."""
    descriptor, began = listener.descriptor, time.process_time()
    try:
        while True:
            call = bytearray(80)
            fcntl.ioctl(descriptor, _RECEIVE, call)
            answer = _ANSWER.pack(*_ID.unpack_from(call), handle(call), 0, 0)
            fcntl.ioctl(descriptor, _SEND, answer)
    except FileNotFoundError:
        return time.process_time() - began
    finally:
        listener.close()


def main() -> None:
    """Measure and print."""
    for what, (wall, own) in (
        ("a bare notification", notification_us()),
        ("a write in the rank's place", write_us()),
    ):
        print(f"{what}: {wall:.1f} us, {own:.1f} us of them processor time of the answerer")
    for place in ("/dev/shm", None):
        where = Path(place or tempfile.gettempdir())
        print(f"a copy of 50 MB in {where}: {1e3 * copy_s(50_000_000, place):.1f} ms")


if __name__ == "__main__":
    main()
