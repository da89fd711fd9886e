"""Threads that a manager saves with do not run while training goes on, and cannot stop the job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.evidence.record import Record
from harness.jobs.training import starvation
from harness.jobs.training.event_log import EventLog
from harness.jobs.training.starvation import Starvation
from tests.harness.strikes import strike


class Noticed(EventLog):
    """An event log of which a test can await a record."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.recorded = threading.Event()
        self.kinds: list[str] = []

    def record(self, record: Record) -> None:
        super().record(record)
        self.kinds.append(record.kind)
        self.recorded.set()


class Manager:
    """Saves in a thread of its own, or in one of a pool that it has had for long."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.state = 0
        self._pool = ThreadPoolExecutor(1)
        self.submit(lambda: None).result()

    def submit(self, work: Callable[[], None]) -> Future[None]:
        return self._pool.submit(work)

    def save(self) -> threading.Thread:
        thread = threading.Thread(target=self.write)
        thread.start()
        return thread

    def write(self) -> None:
        self.read.append(self.state)

    def save_and_wait(self) -> None:
        self.save().join()

    def save_and_look(self) -> None:
        thread = self.save()
        while thread.is_alive():
            pass


@pytest.fixture
def log(tmp_path: Path) -> Noticed:
    return Noticed(tmp_path / "rank0.jsonl")


def _starvation(log: Noticed, *, rank: int = 0) -> Starvation:
    found = strike("starve", {"steps": 2}, ranks=(0,), step=2)
    return Starvation([found], rank=rank, event_log=log)


def test_a_new_thread_reads_nothing_before_the_rank_has_trained_on(log: Noticed) -> None:
    held = _starvation(log)
    manager = held.build(Manager)
    held.after_step(2)
    thread = manager.save()
    assert log.recorded.wait(30)
    manager._manager.state = 3
    held.after_step(3)
    manager._manager.state = 4
    assert manager.read == []
    held.after_step(4)
    thread.join()
    assert (manager.read, log.kinds) == ([4], ["struck"])


def test_a_thread_that_waited_for_work_does_not_begin_it(log: Noticed) -> None:
    held = _starvation(log)
    manager = held.build(Manager)
    held.after_step(2)
    work = manager.submit(manager.write)
    assert log.recorded.wait(30)
    assert manager.read == []
    held.end()
    work.result()
    assert manager.read == [0]


@pytest.mark.parametrize("call", ["save_and_wait", "save_and_look"])
def test_a_save_that_waits_for_its_own_thread_gets_through(
    log: Noticed, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starvation, "_BLOCKED_S", 0.05)
    monkeypatch.setattr(starvation, "_LONGEST_S", 0.5)
    held = _starvation(log)
    manager = held.build(Manager)
    held.after_step(2)
    getattr(manager, call)()
    assert manager.read == [0]


def test_threads_are_held_again_once_the_main_thread_goes_on(
    log: Noticed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starvation, "_BLOCKED_S", 0.05)
    held = _starvation(log)
    manager = held.build(Manager)
    held.after_step(2)
    manager.save_and_wait()
    monkeypatch.setattr(starvation, "_BLOCKED_S", 30.0)
    thread = manager.save()
    manager._manager.state = 3
    held.after_step(3)
    assert manager.read == [0]
    held.after_step(4)
    thread.join()
    assert manager.read == [0, 3]


def test_a_rank_that_is_not_struck_has_the_manager_itself(log: Noticed) -> None:
    other = _starvation(log, rank=1)
    manager = other.build(Manager)
    other.after_step(2)
    manager.save_and_wait()
    assert (type(manager), manager.read, log.kinds) == (Manager, [0], [])
