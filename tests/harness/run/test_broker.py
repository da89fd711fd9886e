"""Jobs of all workers and sessions run what fits, and never more, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from threading import Event, Thread

import pytest
from filelock import FileLock, Timeout

from harness.plan.place import Need
from harness.run import execute as execute_module
from harness.run.broker import Broker, ResourceLease, choose_gpus
from harness.run.execute import execute
from harness.run.machine import Machine
from harness.run.services import Services
from harness.system.errors import HarnessError
from tests.harness.proving import ROOT, plan_of
from tests.harness.run.leasing import MACHINE

Start = Callable[..., subprocess.Popen[str]]


def need(ranks: int = 1, gpus: int = 0) -> Need:
    return Need(ranks=ranks, memory_mib=ranks, gpus=gpus)


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path / "leases", MACHINE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts processes that take leases; ends those that are left."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*words: str | int) -> subprocess.Popen[str]:
        arguments = (str(tmp_path), *map(str, words))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.run.leasing", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def test_processes_never_hold_a_gpu_together_nor_more_ranks_than_there_are(start: Start) -> None:
    wanted = [(2, 1), (2, 2), (1, 1), (4, 0), (1, 0), (3, 1)]
    churning = [start("churn", 15, ranks, gpus) for ranks, gpus in wanted]
    assert [process.wait() for process in churning] == [0] * len(wanted)


def test_a_holder_that_is_killed_gives_back_what_it_had(start: Start, broker: Broker) -> None:
    holder = start("hold", 3, 2)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "0,1\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with broker.lease(need(4, gpus=2)) as lease:
        assert lease == ResourceLease(ranks=4, memory_mib=4, gpus=("0", "1"), gpu_percent=100)


def test_what_is_held_is_not_given_until_it_is_returned(start: Start, broker: Broker) -> None:
    holder = start("hold", 1, 1)
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "0\n"
    with broker.lease(need(1, gpus=1)) as lease:
        assert lease.gpus == ("1",)
    with waiting(broker, need(1, gpus=2)) as (served, _):
        holder.stdin.close()
        assert served.wait(60)


@contextmanager
def waiting(broker: Broker, wanted: Need) -> Iterator[tuple[Event, Event]]:
    """Somebody who stands at the head of the queue, until the block ends, and is then served.

    The first event is set when it is served, the second lets it go.
    """
    served, go = Event(), Event()

    def take() -> None:
        with broker.lease(wanted):
            served.set()
            go.wait()

    thread = Thread(target=take)
    thread.start()
    while not served.is_set() and not in_queue(broker):
        os.sched_yield()
    yield served, go
    go.set()
    thread.join()


def in_queue(broker: Broker) -> bool:
    try:
        with FileLock(broker.folder / "queue", timeout=0):
            return False
    except Timeout:
        return True


def test_a_large_job_at_the_head_of_the_queue_is_served_before_small_ones(broker: Broker) -> None:
    with ExitStack() as small:
        small.enter_context(broker.lease(need(1)))
        with waiting(broker, need(4)) as (served, go):
            assert not served.is_set()
            # Three ranks are free, and nobody else gets one of them.
            with pytest.raises(Timeout), FileLock(broker.folder / "queue", timeout=0):
                pass
            small.close()
            assert served.wait(60)
            go.set()


def test_a_job_larger_than_the_machine_runs_alone(broker: Broker) -> None:
    with broker.lease(Need(ranks=9, memory_mib=4096, gpus=0)) as lease:
        assert (lease.ranks, lease.memory_mib) == (4, 1024)


def test_more_gpus_than_there_are_cannot_be_had(broker: Broker) -> None:
    with (
        pytest.raises(HarnessError, match="the job needs 3 GPUs, this machine has 2"),
        broker.lease(need(gpus=3)),
    ):
        pass


@pytest.mark.parametrize(
    ("jobs", "held", "wanted", "given"),
    [
        (1, (), 1, ("a",)),
        (1, (), 2, ("a", "b")),
        (1, ("a",), 1, ("b",)),
        (1, ("a",), 2, None),
        (2, ("a",), 1, ("b",)),
        (2, ("a", "b"), 1, ("a",)),
        (2, ("a", "a", "b"), 1, ("b",)),
        (2, ("a", "a", "b"), 2, None),
        (3, ("b", "b", "b"), 1, ("a",)),
    ],
)
def test_the_gpu_that_is_used_least_is_given_as_often_as_it_may_be(
    jobs: int, held: tuple[str, ...], wanted: int, given: tuple[str, ...] | None
) -> None:
    machine = Machine(ranks=8, memory_mib=8, gpus=("a", "b"), gpu_jobs=jobs)
    leases = [
        ResourceLease(ranks=1, memory_mib=1, gpus=(name,), gpu_percent=100 // jobs) for name in held
    ]
    assert choose_gpus(machine, leases, wanted) == given


def test_a_session_that_wants_gpus_for_itself_waits_for_those_that_share() -> None:
    alone = Machine(ranks=8, memory_mib=8, gpus=("a",))
    shared = ResourceLease(ranks=1, memory_mib=1, gpus=("a",), gpu_percent=25)
    assert choose_gpus(alone, [shared], 1) is None


def test_a_job_holds_its_lease_while_it_runs_and_its_ranks_are_told_of_their_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[str] = []

    def look(plan: object, number: int, directory: Path, *rest: object) -> None:
        described.append((directory / "gpus.json").read_text(encoding="utf-8"))
        described.extend(path.read_text() for path in (tmp_path / "leases").glob("*.lease"))
        raise RuntimeError("seen")

    class NoServer(Services):
        def server(self) -> None:  # type: ignore[override]
            return None

    class NoStarts:
        def goes_on_to(self, run: int) -> bool:
            return True

        def launch(self, run: int) -> None:
            return None

    monkeypatch.setattr(execute_module, "launches", lambda *_, **__: nullcontext(NoStarts()))
    monkeypatch.setattr(execute_module, "run_start", look)
    services = NoServer(tmp_path / "shared", Broker(tmp_path / "leases", MACHINE))
    with pytest.raises(RuntimeError, match="seen"):
        execute(plan_of("gpu/ranks-share-a-gpu.yaml::dp_shard2"), tmp_path / "run", services)
    assert described == [
        '["0", "1"]',
        '{"ranks": 2, "memory_mib": 1024, "gpus": ["0", "1"], "gpu_percent": 100}',
    ]
    assert not list((tmp_path / "leases").glob("*.lease"))
