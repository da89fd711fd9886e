"""A hand changes the directory exactly at a point, and what it does stands in the trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.evidence.operation import HAND
from harness.plan.model import Deed, Strike
from harness.run.support import missing
from harness.scenario.at_rest import Cutting, Delete, OnFiles, Truncate
from harness.scenario.schema import Point
from tests.harness.run.jobs import supervise
from tests.harness.run.test_supervise import _begin_save

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def _by_hand(action: Delete | Truncate) -> Strike:
    point = Point(rank=0, save=1, operation="open", path="b")
    deed = Deed(id="s", action=action, choice=0)
    return Strike(id="s", fault="by_hand", ranks=(), point=point, deed=deed)


def _two_files(directory: Path, rank: int) -> None:
    os.close(_begin_save(directory, rank))
    for name in ("a", "b"):
        (directory / "checkpoints" / name).write_bytes(b"0123456789")


def test_a_file_goes_before_the_next_operation_of_the_job(tmp_path: Path) -> None:
    trace, processes = supervise(
        _two_files, tmp_path, strikes=[_by_hand(Delete(delete=OnFiles(path="a")))]
    )

    told = [(one.rank, one.kind, one.path) for one in trace.operations]
    assert told == [
        (0, "open", "a"),
        (0, "write", "a"),
        (HAND, "unlink", "a"),
        (HAND, "fsync", "."),
        (0, "open", "b"),
        (0, "write", "b"),
    ]
    assert [one.index for one in trace.operations] == [0, 1, 2, 3, 4, 5]
    assert [(one.strike, one.index) for one in trace.landed] == [("s", 2)]
    assert processes.exits == (0,)


def test_a_hand_that_finds_nothing_to_do_does_not_land(tmp_path: Path) -> None:
    longer = _by_hand(Truncate(truncate=Cutting(path="a", to=10)))

    trace, _ = supervise(_two_files, tmp_path, strikes=[longer])

    assert trace.landed == []
    assert {one.rank for one in trace.operations} == {0}
