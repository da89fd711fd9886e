"""The floor of interception on this machine: the least that any supervisor has to spend.

    python -m benchmarks.floor

A bare notification: a rank's write that the kernel hands over and that is answered at once, without
a look at it. A copy: as many bytes written to a new file by one process, a chunk at a time.
"""

from __future__ import annotations

import fcntl
import os
import socket
import statistics
import struct
import tempfile
import time
from pathlib import Path

from harness.content import CHUNK_BYTES
from harness.system.seccomp import FIRST_DESCRIPTOR, Listener, install_filter

_CALLS = 5000
_RECEIVE = 0xC0502100
_SEND = 0xC0182101
_ID = struct.Struct("=Q")
_ANSWER = struct.Struct("=QqiI")


def notification_us(repeat: int = 5) -> tuple[float, float]:
    """A bare notification: the caller's time, and the answering process's CPU time; medians."""
    found = [_notifications() for _ in range(repeat)]
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


def _notifications() -> tuple[float, float]:
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
    own = _answer(Listener(descriptors[0]))
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
    data = bytes(100)
    began = time.perf_counter()
    for _ in range(_CALLS):
        os.write(FIRST_DESCRIPTOR, data)
    os.write(writer, repr(time.perf_counter() - began).encode())


def _answer(listener: Listener) -> float:
    """Answer until the caller has ended; the processor time that it took."""
    descriptor, began = listener.descriptor, time.process_time()
    try:
        while True:
            call = bytearray(80)
            fcntl.ioctl(descriptor, _RECEIVE, call)
            fcntl.ioctl(descriptor, _SEND, _ANSWER.pack(*_ID.unpack_from(call), 100, 0, 0))
    except FileNotFoundError:
        return time.process_time() - began
    finally:
        listener.close()


def main() -> None:
    """Measure and print."""
    wall, own = notification_us()
    print(
        f"a bare notification: {wall:.1f} us, {own:.1f} us of them processor time of the answerer"
    )
    for place in ("/dev/shm", None):
        where = Path(place or tempfile.gettempdir())
        print(f"a copy of 50 MB in {where}: {1e3 * copy_s(50_000_000, place):.1f} ms")


if __name__ == "__main__":
    main()
