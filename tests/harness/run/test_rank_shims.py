"""Ranks that another launcher starts are seen, ordered, struck and told apart from run to run."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.boot import job_launcher
from harness.boot.rank_shim import own_rank
from harness.evidence.record import SaveBegan
from harness.run.launch import rank_shims as tasks_module
from harness.run.support import missing
from tests.harness.run.shims import lead_by, wait_for
from tests.harness.strikes import strike

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

Start = Callable[[int], int]


def _write_one_file(directory: Path, run: int, rank: int) -> int:
    records = directory / f"run{run}" / f"rank{rank}.jsonl"
    with open(records, "ab", buffering=0) as file:
        file.write(SaveBegan(step=2, ordinal=1).to_line().encode() + b"\n")
    (directory / "checkpoints" / f"run{run}-rank{rank}").write_bytes(b"x")
    return 0


def _start_two(start: Start) -> None:
    for process in [start(rank) for rank in (0, 1)]:
        wait_for(process)


def test_the_operations_of_all_tasks_have_one_order(tmp_path: Path) -> None:
    ((trace, processes),) = lead_by(_start_two, _write_one_file, tmp_path, ranks=2)

    assert processes.exits == (0, 0)
    assert processes.leaked == ()
    written = {(one.rank, one.path) for one in trace.operations if one.kind == "write"}
    assert written == {(0, "run0-rank0"), (1, "run0-rank1")}
    assert [one.index for one in trace.operations] == list(range(len(trace.operations)))
    assert [len(places) for places in trace.places] == [1, 1]


def test_ranks_that_are_started_again_are_the_next_run(tmp_path: Path) -> None:
    def agent(start: Start) -> None:
        statuses = [1]
        while any(statuses):
            statuses = [wait_for(one) for one in [start(rank) for rank in (0, 1)]]

    def body(directory: Path, run: int, rank: int) -> int:
        # Were rank 1 killed before, rank 0 would come too late for the run.
        other = directory / "checkpoints" / f"run{run}-rank0"
        while rank == 1 and not other.exists():
            os.sched_yield()
        return _write_one_file(directory, run, rank)

    kill = strike(ranks=(1,), save=1, operation="write")
    first, second = lead_by(agent, body, tmp_path, ranks=2, runs=[[kill], []])

    assert [one.strike for one in first[0].fired] == ["s"]
    assert first[1].exits == (0, -signal.SIGKILL)
    assert second[1].exits == (0, 0)
    names = {one.path for one in second[0].operations if one.kind == "write"}
    assert names == {"run1-rank0", "run1-rank1"}
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"run0-rank0", "run0-rank1", "run1-rank0", "run1-rank1"}
    assert (tmp_path / "checkpoints" / "run0-rank1").stat().st_size == 0


def test_a_task_ends_as_its_rank_ends_so_that_its_launcher_sees_it(tmp_path: Path) -> None:
    def agent(start: Start) -> None:
        statuses = [wait_for(start(0)) for _ in range(2)]
        (tmp_path / "statuses").write_text(str(statuses))

    def body(directory: Path, run: int, rank: int) -> int:
        if run == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 3

    lead_by(agent, body, tmp_path, runs=[[], []])

    assert (tmp_path / "statuses").read_text() == "[-9, 3]"


def test_a_signal_to_a_task_reaches_its_rank_and_leaves_the_task_alone(
    tmp_path: Path,
) -> None:
    def agent(start: Start) -> None:
        process = start(0)
        while not (tmp_path / "checkpoints" / "ready").exists():
            os.sched_yield()
        os.kill(process, signal.SIGUSR1)
        (tmp_path / "status").write_text(str(wait_for(process)))

    def body(directory: Path, run: int, rank: int) -> int:
        reading, writing = os.pipe()
        signal.signal(signal.SIGUSR1, lambda *_: os.write(writing, b"!"))
        (directory / "checkpoints" / "ready").touch()
        os.read(reading, 1)
        return 7

    ((_, processes),) = lead_by(agent, body, tmp_path)

    assert processes.exits == (7,)
    assert (tmp_path / "status").read_text() == "7"


def test_a_signal_to_a_task_whose_rank_has_not_begun_ends_the_rank_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = job_launcher.report

    def report_and_get_a_signal(link: socket.socket, message: dict[str, Any]) -> None:
        report(link, message)
        if "ranks" in message:
            os.kill(os.getpid(), signal.SIGUSR1)

    def agent(start: Start) -> None:
        monkeypatch.setattr(job_launcher, "report", report_and_get_a_signal)
        (tmp_path / "status").write_text(str(wait_for(start(0))))

    ((_, processes),) = lead_by(agent, _write_one_file, tmp_path)

    assert processes.exits == (-signal.SIGUSR1,)
    assert (tmp_path / "status").read_text() == str(int(-signal.SIGUSR1))


def test_a_rank_goes_with_its_task_and_is_told_as_killed(tmp_path: Path) -> None:
    def agent(start: Start) -> None:
        process = start(0)
        while not (tmp_path / "checkpoints" / "ready").exists():
            os.sched_yield()
        os.kill(process, signal.SIGKILL)
        wait_for(process)

    def body(directory: Path, run: int, rank: int) -> int:
        (directory / "checkpoints" / "ready").touch()
        signal.pause()
        return 0

    ((_, processes),) = lead_by(agent, body, tmp_path)

    assert processes.exits == (-signal.SIGKILL,)


def test_a_rank_that_its_launcher_ends_after_another_failed_counts_as_stopped(
    tmp_path: Path,
) -> None:
    def agent(start: Start) -> None:
        processes = [start(rank) for rank in (0, 1)]
        wait_for(processes[1])
        os.kill(processes[0], signal.SIGTERM)
        wait_for(processes[0])

    def body(directory: Path, run: int, rank: int) -> int:
        if rank == 1:
            while not (directory / "checkpoints" / "ready").exists():
                os.sched_yield()
            return 1
        (directory / "checkpoints" / "ready").touch()
        signal.pause()
        return 0

    ((_, processes),) = lead_by(agent, body, tmp_path, ranks=2)

    assert processes.exits == (-signal.SIGTERM, 1)
    assert processes.stopped == (0,)


def test_a_launcher_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "_LAST_WORDS_S", 0.1)

    def agent(start: Start) -> None:
        wait_for(start(0))
        signal.pause()

    ((_, processes),) = lead_by(agent, _write_one_file, tmp_path)

    assert processes.exits == (0,)


def test_ranks_that_never_come_end_their_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "_BOOT_S", 0.1)

    ((trace, processes),) = lead_by(
        lambda start: signal.pause(), _write_one_file, tmp_path, ranks=2
    )

    assert processes.exits == (-signal.SIGKILL, -signal.SIGKILL)
    assert trace.operations == []


def test_a_socket_is_found_below_a_directory_with_a_long_name(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)

    ((_, processes),) = lead_by(_start_two, _write_one_file, deep, ranks=2)

    assert processes.exits == (0, 0)


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({"TORCHELASTIC_RUN_ID": "job", "RANK": "3", "SLURM_PROCID": "1"}, 3),
        ({"SLURM_PROCID": "1", "RANK": "3"}, 1),
    ],
)
def test_a_task_takes_the_rank_that_its_launcher_gave_it(
    environment: dict[str, str], rank: int
) -> None:
    assert own_rank(environment) == rank


def test_a_rank_that_comes_when_another_has_ended_in_order_is_of_the_same_run(
    tmp_path: Path,
) -> None:
    def agent(start: Start) -> None:
        for rank in (0, 1):
            wait_for(start(rank))

    ((_, processes),) = lead_by(agent, _write_one_file, tmp_path, ranks=2)

    assert processes.exits == (0, 0)
