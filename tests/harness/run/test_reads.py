"""Errors that meet opens for reading and reads while a checkpoint is loaded."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.faults.strike import Strike
from harness.run.support import missing
from tests.harness.run.jobs import supervise
from tests.harness.run.test_supervise import _begin_save
from tests.harness.strikes import strike

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

HEARD = {"reads": True}
"""What the job launcher is told where a strike falls in a load."""


def _ways_to_read(file: int) -> list[Callable[[], object]]:
    return [
        lambda: os.read(file, 4),
        lambda: os.pread(file, 4, 0),
        lambda: os.readv(file, [bytearray(4)]),
        lambda: os.preadv(file, [bytearray(4)], 0),
        lambda: os.preadv(file, [bytearray(4)], 0, os.RWF_HIPRI),
    ]


def _described(call: Callable[[], object]) -> str:
    try:
        return str(call())
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _fill(directory: Path) -> None:
    (directory / "checkpoints" / "step_2").mkdir()
    for name in ("a", "b"):
        (directory / "checkpoints" / "step_2" / name).write_bytes(b"01234567")


def _read_each_way(directory: Path, rank: int) -> None:
    """Note what the system answers to each kind of read."""
    _fill(directory)
    file = os.open(directory / "checkpoints" / "step_2" / "a", os.O_RDONLY)
    answers = [_described(call) for call in _ways_to_read(file)]
    os.close(file)
    (directory / "answers").write_text(" ".join(answers))


def _failing(error: str, *, times: int | str = 1, **point: Any) -> Strike:
    at: dict[str, Any] = {"phase": "load", "path": "step_2/*", **point}
    return strike("fail", {"error": error, "times": times}, **at)


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_each_kind_of_read_can_be_the_one_that_fails(tmp_path: Path, nth: int) -> None:
    planned = _failing("ENOMEM", operation="read", nth=nth)

    trace, _ = supervise(_read_each_way, tmp_path, strikes=[planned], request=HEARD)

    answers = ["b'0123'", "b'0123'", "4", "4", "4"]
    answers[nth - 1] = "ENOMEM"
    assert (tmp_path / "answers").read_text().split() == answers
    reads = [one.error for one in trace.operations if one.kind == "read"]
    assert reads == [12 if number == nth else 0 for number in range(1, 6)]
    assert len(trace.fired) == 1


@pytest.mark.parametrize(
    ("error", "operation", "kind"),
    [
        ("EIO", None, "open_read"),
        ("EMFILE", "open", "open_read"),
        ("EACCES", None, "open_read"),
        ("ENOMEM", "open", "open_read"),
        ("ESTALE", "read", "read"),
    ],
)
def test_the_error_meets_the_open_unless_a_read_is_named(
    tmp_path: Path, error: str, operation: str | None, kind: str
) -> None:
    def body(directory: Path, rank: int) -> None:
        _fill(directory)
        path = directory / "checkpoints" / "step_2" / "b"
        answers = [_described(path.read_bytes), _described(path.read_bytes)]
        (directory / "answers").write_text(" ".join(answers))

    planned = _failing(error, operation=operation, path="step_2/b")

    trace, _ = supervise(body, tmp_path, strikes=[planned], request=HEARD)

    assert (tmp_path / "answers").read_text() == f"{error} b'01234567'"
    failed = [(one.kind, one.path, one.phase) for one in trace.operations if one.error]
    assert failed == [(kind, "step_2/b", "load")]


def test_an_error_that_lasts_meets_every_later_open_and_read(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        _fill(directory)
        inside = directory / "checkpoints" / "step_2"
        file = os.open(inside / "a", os.O_RDONLY)
        answers = [_described(call) for call in _ways_to_read(file)]
        answers.append(_described((inside / "b").read_bytes))
        (directory / "answers").write_text(" ".join(answers))

    planned = _failing("EIO", times="always", operation="read", nth=2)

    supervise(body, tmp_path, strikes=[planned], request=HEARD)

    assert (tmp_path / "answers").read_text().split() == ["b'0123'", *["EIO"] * 5]


def test_reads_are_left_alone_where_only_an_open_can_be_struck(tmp_path: Path) -> None:
    planned = _failing("EMFILE", operation="open", nth=2)

    trace, _ = supervise(_read_each_way, tmp_path, strikes=[planned], request=HEARD)

    assert [one.kind for one in trace.operations if "read" in one.kind] == ["open_read"]


def test_a_file_that_is_opened_for_reading_once_a_save_has_begun_is_left_alone(
    tmp_path: Path,
) -> None:
    def body(directory: Path, rank: int) -> None:
        _fill(directory)
        os.close(_begin_save(directory, rank))
        (directory / "checkpoints" / "step_2" / "a").read_bytes()

    planned = _failing("EIO", operation="read")

    trace, _ = supervise(body, tmp_path, strikes=[planned], request=HEARD)

    assert trace.fired == []
    assert [one.kind for one in trace.operations if one.kind == "read"] == []


def test_a_watched_file_is_read_through_every_copy_of_its_descriptor(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        _fill(directory)
        file = os.open(directory / "checkpoints" / "step_2" / "a", os.O_RDONLY)
        copy = os.dup(file)
        low = os.dup2(file, 100)
        text = b"".join([os.read(file, 2), os.read(copy, 2), os.read(low, 2)])
        os.fsync(file)
        (directory / "answers").write_bytes(text)

    planned = _failing("EIO", operation="read", nth=9)

    trace, processes = supervise(body, tmp_path, strikes=[planned], request=HEARD)

    assert (processes.exits, trace.unseen) == ((0,), [])
    assert (tmp_path / "answers").read_bytes() == b"012345"
    assert [one.path for one in trace.operations if one.kind == "read"] == ["step_2/a"] * 2
