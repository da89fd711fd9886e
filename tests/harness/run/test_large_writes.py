"""Writes whose bytes stay in their file until somebody changes it."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import xxhash

from harness.run.support import missing
from harness.run.trace import Trace
from harness.run.written import LARGE_BYTES, Written, inode_of
from tests.harness.run.jobs import supervise
from tests.harness.strikes import strike

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

_SIZE = 5 * LARGE_BYTES + 3
_FIRST = bytes(range(1, 252)) * (_SIZE // 251) + bytes(_SIZE % 251)
_SECOND = _FIRST[::-1]


def _contents(trace: Trace) -> list[bytes]:
    """The bytes of each write, in order."""
    described = trace.written[:]
    writes = [one for one in trace.operations if one.kind == "write" and not one.error]
    return [described[one.data : one.data + one.size] for one in writes if one.data is not None]


def test_a_large_write_is_told_with_its_bytes(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        (directory / "checkpoints" / "a").write_bytes(_FIRST)

    trace, processes = supervise(body, tmp_path)

    assert processes.exits == (0,)
    assert (tmp_path / "checkpoints" / "a").read_bytes() == _FIRST
    assert _contents(trace) == [_FIRST]
    assert trace.written.problems == []


@pytest.mark.parametrize("how", ["overwritten", "opened anew", "cut off", "cut off by path"])
def test_bytes_are_known_that_were_changed_later(tmp_path: Path, how: str) -> None:
    def body(directory: Path, rank: int) -> None:
        path = directory / "checkpoints" / "a"
        path.write_bytes(_FIRST)
        if how == "overwritten":
            with open(path, "r+b", buffering=0) as file:
                file.seek(LARGE_BYTES)
                file.write(_SECOND)
        elif how == "opened anew":
            path.write_bytes(_SECOND)
        elif how == "cut off":
            with open(path, "r+b") as file:
                file.truncate(7)
        else:
            os.truncate(path, 7)

    trace, processes = supervise(body, tmp_path)

    assert processes.exits == (0,)
    later = [_SECOND] if how in ("overwritten", "opened anew") else []
    assert _contents(trace) == [_FIRST, *later]
    assert trace.written.problems == []


def test_bytes_are_known_of_a_file_that_is_gone(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        inside = directory / "checkpoints"
        (inside / "a").write_bytes(_FIRST)
        (inside / "b").write_bytes(_SECOND)
        (inside / "b").replace(inside / "a")
        (inside / "a").unlink()

    trace, processes = supervise(body, tmp_path)

    assert processes.exits == (0,)
    assert _contents(trace) == [_FIRST, _SECOND]


@pytest.mark.parametrize("size", [2 * mmap.PAGESIZE, 4 * LARGE_BYTES])
@pytest.mark.parametrize("short", [False, True])
def test_writes_past_the_page_cache_are_carried_out(
    tmp_path: Path, size: int, *, short: bool
) -> None:
    def body(directory: Path, rank: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_DIRECT
        file = os.open(directory / "checkpoints" / "a", flags, 0o644)
        page = mmap.mmap(-1, size)
        page[:] = _FIRST[:size]
        done = os.write(file, page)
        assert done == (size // 2 if short else size)
        fcntl.fcntl(file, fcntl.F_SETFL, 0)  # what is no whole block
        os.write(file, page[done:] + b"the end")
        os.close(file)

    halves = [strike("short_write", operation="write", path="a")] if short else []
    trace, processes = supervise(body, tmp_path, strikes=halves)

    assert processes.exits == (0,)
    assert (tmp_path / "checkpoints" / "a").read_bytes() == _FIRST[:size] + b"the end"
    assert b"".join(_contents(trace)) == _FIRST[:size] + b"the end"


@pytest.mark.parametrize(
    ("begin", "size"), [(1, 4096), (0, 4000), (1, 3 * LARGE_BYTES), (0, 3 * LARGE_BYTES + 100)]
)
def test_what_the_kernel_refuses_past_the_page_cache_is_refused(
    tmp_path: Path, begin: int, size: int
) -> None:
    def write(path: Path) -> int:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o644)
        page = mmap.mmap(-1, begin + size)
        try:
            return os.write(file, memoryview(page)[begin:])
        except OSError as error:
            return -int(error.errno or 0)

    def body(directory: Path, rank: int) -> None:
        (directory / "answer").write_text(str(write(directory / "checkpoints" / "a")))

    supervise(body, tmp_path)

    assert int((tmp_path / "answer").read_text()) == write(tmp_path / "b")


def test_a_vector_of_many_spans_is_written_whole_and_in_order(tmp_path: Path) -> None:
    spans = [_FIRST[number : number + 100] for number in range(0, 1000 * 100, 100)]

    def body(directory: Path, rank: int) -> None:
        descriptor = os.open(directory / "checkpoints" / "a", os.O_WRONLY | os.O_CREAT)
        assert os.writev(descriptor, spans) == 100_000
        assert os.pwritev(descriptor, [_SECOND, b"end"], 50_000) == _SIZE + 3

    trace, processes = supervise(body, tmp_path)

    assert processes.exits == (0,)
    assert _contents(trace) == [b"".join(spans), _SECOND + b"end"]
    expected = b"".join(spans)[:50_000] + _SECOND + b"end"
    assert (tmp_path / "checkpoints" / "a").read_bytes() == expected


def test_appended_bytes_are_found_where_they_went(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(directory / "checkpoints" / "a", flags)
        os.write(descriptor, _FIRST)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, _SECOND)

    trace, _ = supervise(body, tmp_path)

    assert [one.offset for one in trace.operations if one.kind == "write"] == [0, _SIZE]
    assert _contents(trace) == [_FIRST, _SECOND]


def test_a_short_write_takes_half_of_a_large_one(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        descriptor = os.open(directory / "checkpoints" / "a", os.O_WRONLY | os.O_CREAT)
        assert os.write(descriptor, _FIRST) == _SIZE // 2 + 1

    trace, processes = supervise(
        body, tmp_path, strikes=[strike("short_write", operation="write", path="a")]
    )

    assert processes.exits == (0,)
    assert _contents(trace) == [_FIRST[: _SIZE // 2 + 1]]


def test_a_buffer_that_cannot_be_read_is_an_error_for_the_rank_alone(tmp_path: Path) -> None:
    import ctypes

    def body(directory: Path, rank: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(directory / "checkpoints" / "a", os.O_WRONLY | os.O_CREAT)
        assert libc.write(descriptor, ctypes.c_void_p(8), ctypes.c_size_t(_SIZE)) == -1
        os.write(descriptor, b"x")

    trace, processes = supervise(body, tmp_path)

    assert processes.exits == (0,)
    assert [(one.kind, one.error) for one in trace.operations] == [
        ("open", 0), ("write", 14), ("write", 0),
    ]  # fmt: skip


def test_bytes_that_somebody_else_changed_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(_FIRST)
    written = Written(tmp_path / "written.bin")
    with path.open("rb") as file:
        digest = xxhash.xxh3_128_digest(_FIRST)
        assert written.leave(file.fileno(), 0, _SIZE, digest=digest, path="a") == 0
    with path.open("r+b") as file:
        file.seek(9)
        file.write(b"?")

    written.settle()

    assert len(written) == _SIZE
    assert written.problems == [f"{_SIZE} bytes at 0 of a are not what was written there"]


def test_a_change_beside_the_bytes_leaves_them_in_their_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(_FIRST + _SECOND)
    written = Written(tmp_path / "written.bin")
    with path.open("rb") as file:
        digest = xxhash.xxh3_128_digest(_SECOND)
        written.leave(file.fileno(), _SIZE, _SIZE, digest=digest, path="a")
    inode = inode_of(str(path))

    written.before_change(inode, 0, _SIZE)
    written.before_change(inode, 2 * _SIZE)
    os.truncate(path, _SIZE + 5)

    # Nothing was taken out: what was cut off behind its back is missing.
    written.settle()
    assert written[:] == _SECOND[:5] + bytes(_SIZE - 5)
    written.close()


def test_equal_bytes_are_kept_once_whatever_becomes_of_the_first_file(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        inside = directory / "checkpoints"
        (inside / "a").write_bytes(_FIRST)
        (inside / "b").write_bytes(_FIRST)
        (inside / "a").write_bytes(_SECOND)
        (inside / "b").unlink()

    trace, _ = supervise(body, tmp_path)

    assert _contents(trace) == [_FIRST, _FIRST, _SECOND]
    assert len(trace.written) == 2 * _SIZE


def _leave(written: Written, path: Path, offset: int) -> None:
    """Leaves bytes in a file, different ones at each offset."""
    with path.open("rb") as file:
        digest = xxhash.xxh3_128_digest(str(offset).encode())
        written.leave(file.fileno(), offset, 10, digest=digest, path=path.name)


def test_a_file_is_closed_when_its_last_bytes_have_been_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(20))
    written = Written(tmp_path / "written.bin")
    before = set(os.listdir("/proc/self/fd"))
    _leave(written, path, 0)
    _leave(written, path, 10)

    written.before_change(inode_of(str(path)), 0, 5)
    assert len(set(os.listdir("/proc/self/fd")) - before) == 1
    written.before_change(inode_of(str(path)), 15, 16)
    assert set(os.listdir("/proc/self/fd")) == before
    written.close()


def _calls(work: Callable[[], None]) -> int:
    """The number of Python functions that are entered."""
    events = []
    sys.setprofile(lambda frame, event, _: events.append(event))
    work()
    sys.setprofile(None)
    return events.count("call")


def test_an_appended_write_examines_none_of_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a")
    written = Written(tmp_path / "written.bin")
    inode = inode_of(str(path))
    calls = set()
    for offset in range(0, 1000, 10):
        calls.add(_calls(partial(written.before_change, inode, offset, offset + 10)))
        _leave(written, path, offset)

    assert calls == {1}
    written.close()
