"""Stale file handles are retried, a bounded number of times; nothing else is."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from kempnerforge.checkpoint import AsyncCheckpointer, async_save, saving, shards, stale
from kempnerforge.checkpoint.stale import RetryingStorage, again_if_stale, await_directory
from kempnerforge.checkpoint.storage import LocalStorage, Storage
from kempnerforge.config.schema import AsyncCheckpointMode
from tests.checkpoint.training import Job


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale, "_PAUSES_S", (0.0, 0.0, 0.0, 0.0))


def failing(times: int, code: int) -> Callable[[], int]:
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise OSError(code, os.strerror(code))
        return calls

    return call


def test_a_stale_handle_is_tried_again_up_to_four_times(tmp_path: Path) -> None:
    assert again_if_stale(failing(4, errno.ESTALE), tmp_path) == 5
    with pytest.raises(OSError, match="Stale file handle"):
        again_if_stale(failing(5, errno.ESTALE), tmp_path)


def test_another_error_is_raised_at_once(tmp_path: Path) -> None:
    call = failing(1, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        again_if_stale(call, tmp_path)
    assert call() == 2


class SeenLate(LocalStorage):
    """A machine that finds a name only once it has asked the server again, for the nth time."""

    def __init__(self, hidden: Path, refreshes: int) -> None:
        self.hidden, self.refreshes, self.asked = hidden, refreshes, 0

    def refresh(self, directory: Path) -> None:
        assert directory == self.hidden.parent
        self.asked += 1

    def is_directory(self, path: Path) -> bool:
        return self.asked >= self.refreshes and super().is_directory(path)


def test_a_directory_that_another_machine_made_is_looked_for_until_it_is_seen(
    tmp_path: Path,
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for refreshes, asked in ((0, 0), (1, 1), (4, 4), (9, 4)):
        storage = SeenLate(made, refreshes)
        await_directory(made, storage)
        assert storage.asked == asked


def test_a_fresh_look_opens_the_directory_and_all_above_it_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = os.open

    def noted(path: Path, flags: int) -> int:
        opened.append(str(path))
        return real(path, flags)

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(os, "open", noted)
    LocalStorage().refresh(tmp_path / "a" / "b")
    assert opened[0] == "/"
    assert opened[-3:] == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]


class HiddenAtFirst(LocalStorage):
    """No file can be written to a directory that was not looked for again."""

    def __init__(self) -> None:
        self.seen: set[Path] = set()

    def refresh(self, directory: Path) -> None:
        self.seen.add(directory)

    def is_directory(self, path: Path) -> bool:
        return path.parent in self.seen and super().is_directory(path)


def test_a_save_looks_for_the_staging_directory_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = HiddenAtFirst()
    job = Job(tmp_path, 0, seed=1)
    job.manager._storage = storage
    missed: list[Path] = []

    def write_shards(directory: Path, *args: Any, **options: Any) -> Any:
        if directory.parent not in storage.seen:
            missed.append(directory)
        return shards.write_shards(directory, *args, **options)

    monkeypatch.setattr(saving, "write_shards", write_shards)
    job.save(1)
    assert missed == []
    assert tmp_path / "checkpoints" in storage.seen


class StaleOnce(LocalStorage):
    """Each operation on each path fails once."""

    def __init__(self) -> None:
        self.failed: set[Any] = set()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in vars(LocalStorage) or name.startswith("_"):
            return found

        def operation(*args: Any) -> Any:
            if (name, *args) not in self.failed:
                self.failed.add((name, *args))
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return found(*args)

        return operation


def test_saves_and_loads_survive_handles_that_go_stale_everywhere_once(tmp_path: Path) -> None:
    storage = StaleOnce()
    job = Job(tmp_path, 0, seed=1, keep_last_n=1)
    job.manager._storage = RetryingStorage(storage)
    for step in (1, 2, 2):
        job.save(step)
    assert job.load()[0] == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "latest",
        "step_2",
    ]
    operations = {name for name in vars(Storage) if not name.startswith("_")}
    assert {name for name, *_ in storage.failed} >= operations - {"unlink", "refresh"}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("mode", list(AsyncCheckpointMode))
def test_the_checkpointer_alone_survives_handles_that_go_stale_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: AsyncCheckpointMode
) -> None:
    storage = StaleOnce()
    stale_shards: list[bool] = []

    def write_shards(*args: Any, **options: Any) -> Any:
        if not stale_shards:
            stale_shards.append(True)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return shards.write_shards(*args, **options)

    monkeypatch.setattr(async_save, "LocalStorage", lambda: storage)
    monkeypatch.setattr(async_save, "write_shards", write_shards)
    checkpointer = AsyncCheckpointer(mode)
    checkpointer.save({"x": torch.arange(3.0)}, str(tmp_path / "alone"))
    checkpointer.wait()
    state = {"x": torch.zeros(3)}
    dcp_load(state, checkpoint_id=str(tmp_path / "alone"))
    assert state["x"].tolist() == [0.0, 1.0, 2.0]
    assert stale_shards
    assert {name for name, *_ in storage.failed} >= {
        "make_durable_directory",
        "write",
        "sync_directory",
    }
