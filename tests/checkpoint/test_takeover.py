"""A holder is stopped at any instant of a save, its lock is taken over, and it continues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import CheckpointError
from kempnerforge.checkpoint.protocol.catalog import read_catalog
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.runtime import lease, lock
from kempnerforge.checkpoint.runtime.file_systems import Mount
from kempnerforge.checkpoint.runtime.lease import FoundLease
from kempnerforge.checkpoint.runtime.lease_watch import LeaseWatch
from kempnerforge.checkpoint.runtime.process import draw_id
from kempnerforge.checkpoint.runtime.processes import Process
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint.effects import give
from tests.checkpoint.storages import NoExchange
from tests.checkpoint.training import Job


class Stopping:
    """Storage of a process that is stopped before or after one of its operations."""

    def __init__(
        self, storage: LocalStorage, at: int, meanwhile: Callable[[], None], *, before: bool
    ) -> None:
        self._storage = storage
        self._left = at
        self._meanwhile = meanwhile
        self._before = before
        self._one_by_one = threading.Lock()

    @property
    def was_stopped(self) -> bool:
        return self._left < 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._storage, name)

        def operation(*args: Any) -> Any:
            with self._one_by_one:  # all threads of the process are stopped
                self._left -= 1
                is_now = self._left == -1
                if is_now and self._before:
                    self._meanwhile()
                try:
                    return call(*args)
                finally:
                    if is_now and not self._before:
                        self._meanwhile()

        return operation


class Impatient(LeaseWatch):
    """Takes every holder elsewhere for dead."""

    def has_found_dead(self, found: FoundLease) -> bool:
        return True


class Host:
    """What makes a process one of another host, within this one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._monkeypatch = monkeypatch
        self._process = replace(Process.this(), host=name, boot=name)
        self._leases: set[str] = set()
        self._locks: dict[Any, Any] = {}

    @contextmanager
    def here(self) -> Iterator[None]:
        with self._monkeypatch.context() as now:
            now.setattr(Process, "this", lambda: self._process)
            now.setattr(lease, "_held", self._leases)
            now.setattr(lock, "_held", self._locks)
            now.setattr(lock, "_flock", lambda _: True)
            now.setattr(lock, "_is_locked_below", lambda _: False)
            yield


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Host]:
    monkeypatch.setattr(lock, "mount_of", lambda _: Mount(type="fuse.sshfs"))
    monkeypatch.setattr(lock, "LeaseWatch", Impatient)
    return Host(monkeypatch, "one"), Host(monkeypatch, "other")


def published(root: Path) -> dict[str, object]:
    entries = read_catalog(root, LocalStorage()).entries
    found: dict[str, object] = {
        entry.path.name: entry.head.save_id for entry in entries if entry.head is not None
    }
    return {**found, "latest": (root / "latest").readlink()}


def stopped_at(
    directory: Path,
    hosts: tuple[Host, Host],
    disk: LocalStorage,
    at: int,
    step: int,
    *,
    before: bool,
) -> bool:
    """Whether a save of ``step`` has so many operations; then it was stopped at that one."""
    root = directory / "checkpoints"
    one, other = hosts
    with one.here():
        first = Job(directory, 0, seed=1, keep_last_n=2)
        give(first.manager, process=ProcessMemory(draw_id), storage=disk)
        for number in (1, 2, 3):
            first.save(number)
    then: dict[str, object] = {}
    second: list[Job] = []

    def take_over() -> None:
        with other.here():
            second.append(Job(directory, 0, seed=2, keep_last_n=2))
            give(second[0].manager, process=ProcessMemory(draw_id), storage=disk)
            second[0].load()
            second[0].save(10)
            then.update(published(root))

    storage = Stopping(disk, at, take_over, before=before)
    give(first.manager, storage=storage)
    with one.here():
        try:
            first.save(step)
        except CheckpointError:
            assert storage.was_stopped
        if not storage.was_stopped:
            return False
        assert published(root) == then, at
        assert then["latest"] == Path("step_10")
        with pytest.raises(CheckpointError, match="in use by another job"):
            first.save(5)
    with other.here():
        second[0].save(11)
        assert sorted(published(root)) == ["latest", "step_10", "step_11"]
    return True


@pytest.mark.parametrize(
    ("step", "exchanges", "before"),
    [
        pytest.param(4, True, True, id="new, before", marks=pytest.mark.long),
        pytest.param(3, True, True, id="replaced, before"),
        pytest.param(3, True, False, id="replaced, after", marks=pytest.mark.long),
        pytest.param(3, False, False, id="name by name, after", marks=pytest.mark.long),
    ],
)
def test_who_was_taken_over_from_at_any_operation_changes_nothing_more(
    tmp_path: Path,
    hosts: tuple[Host, Host],
    step: int,
    exchanges: bool,
    before: bool,
) -> None:
    """Before an operation, it was confirmed already, so this one is made all the same."""
    disk = LocalStorage() if exchanges else NoExchange()
    at = 0
    while stopped_at(tmp_path / str(at), hosts, disk, at, step, before=before):
        at += 1
    assert at > 20
