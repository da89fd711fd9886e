"""Faults that hit one operation: errors, short writes, operations that are slow or never return."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.evidence.record import SaveBegan
from harness.run.support import missing
from tests.harness.run.jobs import supervise
from tests.harness.run.test_supervise import _begin_save
from tests.harness.strikes import strike

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def _answers(directory: Path) -> list[str]:
    return (directory / "answers").read_text().split()


def _write_five(directory: Path, rank: int) -> None:
    """Write into five files; note for each what the system answered."""
    os.close(_begin_save(directory, rank))
    answers = []
    for number in range(5):
        path = directory / "checkpoints" / f"f{number}"
        try:
            path.write_bytes(b"0123456789")
            answers.append("ok")
        except OSError as error:
            answers.append(errno.errorcode[error.errno or 0])
    (directory / "answers").write_text(" ".join(answers))


@pytest.mark.parametrize(
    ("times", "answers"),
    [
        (1, ["ok", "ENOSPC", "ok", "ok", "ok"]),
        (2, ["ok", "ENOSPC", "ENOSPC", "ok", "ok"]),
        ("always", ["ok", "ENOSPC", "ENOSPC", "ENOSPC", "ENOSPC"]),
    ],
)
def test_an_error_is_answered_once_several_times_or_from_then_on(
    tmp_path: Path, times: int | str, answers: list[str]
) -> None:
    full = strike("fail", {"error": "ENOSPC", "times": times}, save=1, operation="open", nth=2)

    trace, processes = supervise(_write_five, tmp_path, strikes=[full])

    assert processes.exits == (0,)
    assert _answers(tmp_path) == answers
    assert [item.strike for item in trace.fired] == ["s"]
    failed = [operation.error for operation in trace.operations if operation.error]
    assert failed == [errno.ENOSPC] * answers.count("ENOSPC")


def test_an_error_lasts_until_the_rank_begins_the_save_that_heals_it(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        records = _begin_save(directory, rank)
        answers = []
        for ordinal in (2, 3):
            for name in ("a", "b"):
                try:
                    (directory / "checkpoints" / f"{name}{ordinal}").write_bytes(b"x")
                    answers.append("ok")
                except OSError as error:
                    answers.append(errno.errorcode[error.errno or 0])
            line = SaveBegan(step=2 * ordinal, ordinal=ordinal).to_line()
            os.write(records, line.encode() + b"\n")
        (directory / "answers").write_text(" ".join(answers))

    full = strike("fail", {"error": "EDQUOT", "until": {"save": 2}}, save=1, operation="open")

    trace, _ = supervise(body, tmp_path, strikes=[full])

    assert _answers(tmp_path) == ["EDQUOT", "EDQUOT", "ok", "ok"]
    assert [one.then for one in trace.fired] == [None, "healed"]


def test_a_full_disk_still_deletes(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        os.close(_begin_save(directory, rank))
        inside = directory / "checkpoints"
        (inside / "old").write_bytes(b"x")
        with pytest.raises(OSError, match="No space left"):
            (inside / "new").write_bytes(b"x")
        (inside / "old").rename(inside / "older")
        (inside / "older").unlink()

    full = strike("fail", {"error": "ENOSPC", "times": "always"}, save=1, path="new")

    _, processes = supervise(body, tmp_path, strikes=[full])

    assert processes.exits == (0,)
    assert os.listdir(tmp_path / "checkpoints") == []


def test_a_short_write_takes_half_and_says_so(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        os.close(_begin_save(directory, rank))
        file = os.open(directory / "checkpoints" / "f", os.O_WRONLY | os.O_CREAT)
        taken = [os.write(file, b"0123456789"), os.write(file, b"56789")]
        (directory / "answers").write_text(" ".join(map(str, taken)))

    supervise(body, tmp_path, strikes=[strike("short_write", save=1, operation="write")])

    assert _answers(tmp_path) == ["5", "5"]
    assert (tmp_path / "checkpoints" / "f").read_bytes() == b"0123456789"


def test_a_retransmitted_change_is_done_once_and_answered_as_if_it_could_not_be(
    tmp_path: Path,
) -> None:
    def body(directory: Path, rank: int) -> None:
        os.close(_begin_save(directory, rank))
        root = directory / "checkpoints"
        answers: list[str] = []
        changes: list[Callable[[], None]] = [
            (root / "a").mkdir,
            lambda: os.rename(root / "a", root / "b"),
        ]
        for change in changes:
            try:
                change()
                answers.append("done")
            except OSError as error:
                answers.append(errno.errorcode[error.errno or 0])
        (directory / "answers").write_text(" ".join(answers))

    kinds = ("mkdir", "rename")
    strikes = [strike("retransmit", name=kind, save=1, operation=kind) for kind in kinds]
    trace, _ = supervise(body, tmp_path, strikes=strikes)

    assert _answers(tmp_path) == ["EEXIST", "ENOENT"]
    assert os.listdir(tmp_path / "checkpoints") == ["b"]
    done = [(one.kind, one.error) for one in trace.operations if one.kind in kinds]
    assert done == [("mkdir", 0), ("rename", 0)]


@pytest.mark.parametrize(("flags", "size"), [(0, 1), (os.O_DIRECT, 512)])
def test_a_short_write_does_not_fire_where_there_is_nothing_to_split(
    tmp_path: Path, flags: int, size: int
) -> None:
    def body(directory: Path, rank: int) -> None:
        path = directory / "checkpoints" / "f"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
        taken = os.write(file, memoryview(mmap.mmap(-1, size)))
        (directory / "answers").write_text(str(taken))

    short = strike("short_write", operation="write", path="f")

    trace, _ = supervise(body, tmp_path, strikes=[short])

    assert _answers(tmp_path) == [str(size)]
    assert trace.fired == []


@pytest.mark.parametrize("second", ["fail", "short_write", "delay", "second_job"])
def test_only_the_first_of_two_faults_that_decide_an_operation_fires(
    tmp_path: Path, second: str
) -> None:
    strikes = [
        strike(fault, save=1, operation="write", name=name)
        for fault, name in (("fail", "first"), (second, "second"))
    ]

    trace, processes = supervise(_write_five, tmp_path, strikes=strikes)

    assert processes.exits == (0,)
    assert _answers(tmp_path) == ["EIO", "ok", "ok", "ok", "ok"]
    assert [one.strike for one in trace.fired] == ["first"]


def test_a_short_write_falls_on_the_write_that_replaces_a_copy_in_the_kernel(
    tmp_path: Path,
) -> None:
    def body(directory: Path, rank: int) -> None:
        os.close(_begin_save(directory, rank))
        (directory / "source").write_bytes(b"0123456789")
        shutil.copyfile(directory / "source", directory / "checkpoints" / "copy")

    short = strike("short_write", save=1, operation="write")

    trace, processes = supervise(body, tmp_path, strikes=[short])

    assert processes.exits == (0,)
    assert len(trace.fired) == 1
    writes = [operation.size for operation in trace.operations if operation.kind == "write"]
    assert writes[0] == 5


def test_a_slow_operation_takes_its_time(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        os.close(_begin_save(directory, rank))
        began = time.monotonic()
        (directory / "checkpoints" / "f").write_bytes(b"x")
        (directory / "took").write_text(str(time.monotonic() - began))

    slow = strike("delay", {"seconds": 0.5}, save=1, operation="write")

    supervise(body, tmp_path, strikes=[slow])

    assert float((tmp_path / "took").read_text()) >= 0.5
    assert (tmp_path / "checkpoints" / "f").read_bytes() == b"x"


def test_a_slow_operation_holds_no_other_rank(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        files = [directory / "checkpoints" / f"f{number}" for number in (0, 1)]
        own = os.open(files[rank], os.O_WRONLY | os.O_CREAT)
        os.close(_begin_save(directory, rank))
        # Until the run is ended, as nobody tells anything any more, or the other one goes on.
        while rank == 0 and not (files[1].exists() and files[1].stat().st_size):
            os.write(own, b"x")
            time.sleep(0.01)  # so that the trace stays short
        os.write(own, b"x")

    slow = strike("delay", {"seconds": 30.0}, ranks=(1,), save=1, operation="write")

    trace, _ = supervise(body, tmp_path, ranks=2, strikes=[slow], deadline_s=1.0)

    after = [(one.rank, one.kind) for one in trace.operations[trace.fired[0].index :]]
    meanwhile = itertools.takewhile(lambda one: one != (1, "write"), after)
    assert (0, "write") in meanwhile


def test_an_operation_that_never_returns_is_ended_at_the_deadline(tmp_path: Path) -> None:
    trace, processes = supervise(
        _write_five,
        tmp_path,
        strikes=[strike("hang", save=1, path="f1")],
        deadline_s=1.0,
    )

    assert processes.hung == (0,)
    assert os.listdir(tmp_path / "checkpoints") == ["f0"]
    assert len(trace.fired) == 1


def test_a_stopped_rank_goes_on_when_its_time_is_over(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        began = time.monotonic()
        _write_five(directory, rank)
        (directory / "took").write_text(str(time.monotonic() - began))

    pause = strike("stop", {"seconds": 0.5}, save=1, path="f1")

    _, processes = supervise(body, tmp_path, strikes=[pause])

    assert processes.exits == (0,)
    assert _answers(tmp_path) == ["ok"] * 5
    assert float((tmp_path / "took").read_text()) >= 0.4
