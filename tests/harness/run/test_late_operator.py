"""An operator changes the directory exactly at a point, and what it does stands in the trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.evidence.operation import OPERATOR
from harness.faults.actions import (
    Delete,
    Displace,
    Displacing,
    OnFiles,
    PutBack,
    PuttingBack,
    Truncate,
    Truncation,
)
from harness.faults.strike import Strike
from harness.run.support import missing
from tests.harness.run.jobs import supervise
from tests.harness.run.test_supervise import _begin_save
from tests.harness.strikes import operator

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def _by_operator(action: Delete | Truncate) -> Strike:
    return operator(action, save=1, operation="open", path="b")


def _two_files(directory: Path, rank: int) -> None:
    os.close(_begin_save(directory, rank))
    for name in ("a", "b"):
        (directory / "checkpoints" / name).write_bytes(b"0123456789")


def test_a_file_goes_before_the_next_operation_of_the_job(tmp_path: Path) -> None:
    trace, processes = supervise(
        _two_files, tmp_path, strikes=[_by_operator(Delete(delete=OnFiles(path="a")))]
    )

    described = [(one.rank, one.kind, one.path) for one in trace.operations]
    assert described == [
        (0, "open", "a"),
        (0, "write", "a"),
        (OPERATOR, "unlink", "a"),
        (OPERATOR, "fsync", "."),
        (0, "open", "b"),
        (0, "write", "b"),
    ]
    assert [one.index for one in trace.operations] == [0, 1, 2, 3, 4, 5]
    assert [(one.strike, one.index) for one in trace.fired] == [("s", 2)]
    assert processes.exits == (0,)


def test_an_operator_that_finds_nothing_to_do_does_not_fire(tmp_path: Path) -> None:
    longer = _by_operator(Truncate(truncate=Truncation(path="a", to=10)))

    trace, _ = supervise(_two_files, tmp_path, strikes=[longer])

    assert trace.fired == []
    assert {one.rank for one in trace.operations} == {0}


def _write_while_away(directory: Path, rank: int) -> None:
    os.close(_begin_save(directory, rank))
    root = directory / "checkpoints"
    (root / "a").write_bytes(b"1")
    root.mkdir(exist_ok=True)
    (root / "b").write_bytes(b"2")
    (root / "c").write_bytes(b"3")


def test_a_directory_is_moved_away_and_comes_back_with_what_was_in_it(tmp_path: Path) -> None:
    moments: list[tuple[str, Displace | PutBack]] = [
        ("b", Displace(displace=Displacing(leaves="empty"))),
        ("c", PutBack(put_back=PuttingBack())),
    ]
    strikes = [
        operator(action, name=path, save=1, operation="open", path=path) for path, action in moments
    ]

    trace, processes = supervise(_write_while_away, tmp_path, strikes=strikes)

    described = [(one.rank, one.kind, one.path) for one in trace.operations if one.kind != "write"]
    assert described == [
        (0, "open", "a"),
        (0, "mkdir", "."),
        (OPERATOR, "displace", "."),
        (0, "open", "b"),
        (OPERATOR, "put_back", "."),
        (0, "open", "c"),
    ]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["a", "c"]
    assert os.listdir(tmp_path / "checkpoints.instead") == ["b"]
    assert (processes.exits, [one.strike for one in trace.fired]) == ((0,), ["b", "c"])
