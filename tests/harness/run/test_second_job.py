"""A second job is started while a rank of the first stands still, and what it does is seen."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.boot import job_launcher
from harness.run.support import missing
from tests.harness.run.jobs import supervise
from tests.harness.run.test_supervise import _begin_save
from tests.harness.strikes import strike

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def _write_two(directory: Path, rank: int) -> None:
    """The first job has the ranks 0 and 1, the second one 2 and 3."""
    os.close(_begin_save(directory, rank))
    for name in ("a", "b"):
        (directory / "checkpoints" / f"{name}{rank}").write_bytes(b"x")


def test_a_second_job_comes_and_goes_while_an_operation_of_the_first_waits(tmp_path: Path) -> None:
    joining = strike("second_job", ranks=(1,), save=1, path="b1", operation="open")

    trace, processes = supervise(_write_two, tmp_path, ranks=2, strikes=[joining])

    opened = [one.path for one in trace.operations if one.kind == "open"]
    held, others = opened.index("b1"), [opened.index(f"b{rank}") for rank in (2, 3)]
    assert opened.index("a1") < min(others) <= max(others) < held
    assert [(one.strike, one.ranks, one.then) for one in trace.fired] == [
        ("s", (1,), None),
        ("s", (1,), "ended"),
    ]
    assert (processes.exits, processes.second) == ((0, 0), (0, 0))
    assert (processes.leaked, processes.stopped, processes.hung) == ((), (), ())


def test_operations_of_the_second_job_belong_to_its_own_saves(tmp_path: Path) -> None:
    joining = strike("second_job", ranks=(0,), save=1, path="b0", operation="open")

    trace, _ = supervise(_write_two, tmp_path, ranks=2, strikes=[joining])

    saves = {one.rank: one.save for one in trace.operations}
    assert saves == {0: 1, 1: 1, 2: 1, 3: 1}
    assert [len(places) for places in trace.places] == [1, 1, 1, 1]


def test_a_rank_that_died_meanwhile_does_not_go_on(tmp_path: Path) -> None:
    def body(directory: Path, rank: int) -> None:
        os.close(_begin_save(directory, rank))
        (directory / "checkpoints" / f"a{rank}").write_bytes(b"x")

    joining = strike("second_job", ranks=(0,), save=1, path="a0", operation="open")
    kill = strike("kill", ranks=(0,), rank=1, name="k", save=1, path="a1", operation="open")

    trace, processes = supervise(body, tmp_path, strikes=[joining, kill])

    assert [one.path for one in trace.operations if one.kind == "open"] == ["a1"]
    assert (processes.exits, processes.second) == ((-9,), (0,))


def _wait(request: dict[str, Any], rank: int) -> int:
    signal.pause()
    return rank


def _lead_ranks_that_wait(link: socket.socket, directory: Path) -> NoReturn:
    try:
        (directory / "run0").mkdir()
        named = {"directory": str(directory), "run": 0}
        request = {**named, "ranks": 1, "namespaces": (), "nodes": 1}
        pids = job_launcher.start(link, request, _wait, first=0)
        job_launcher.reap(link, request, pids, _wait)
    finally:
        os._exit(1)  # a test must not go on in two processes


def test_who_is_stopped_while_a_second_job_is_forked_is_stopped_with_it(tmp_path: Path) -> None:
    link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        link.close()
        _lead_ranks_that_wait(other, tmp_path)
    other.close()
    with link:
        link.settimeout(60)
        assert b"ranks" in link.recv(1024)
        for word in (b"go", b"second", b"stop"):
            link.send(word)
        assert b"ranks" in link.recv(1024)
        link.send(b"go")
        ended = sorted(json.loads(link.recv(1024))["exit"] for _ in range(2))
    os.waitpid(pid, 0)

    assert ended == [[0, -signal.SIGKILL], [1, -signal.SIGKILL]]
