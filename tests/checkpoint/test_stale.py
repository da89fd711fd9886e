"""Stale file handles are retried a bounded number of times; nothing else is."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from kempnerforge.checkpoint import AsyncCheckpointer, async_save
from kempnerforge.checkpoint.bulk import directory_save, shards
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.stale import RetryingStorage, again_if_stale
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.config.schema import AsyncCheckpointMode
from tests.checkpoint.effects import give
from tests.checkpoint.simulated import JumpingClock
from tests.checkpoint.training import Job


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
    clock = JumpingClock()
    assert again_if_stale(failing(4, errno.ESTALE), tmp_path, clock) == 5
    assert clock.now == pytest.approx(4.25)
    with pytest.raises(OSError, match="Stale file handle"):
        again_if_stale(failing(5, errno.ESTALE), tmp_path, clock)


def test_another_error_is_raised_at_once(tmp_path: Path) -> None:
    call = failing(1, errno.EIO)
    clock = JumpingClock()
    with pytest.raises(OSError, match="Input/output error"):
        again_if_stale(call, tmp_path, clock)
    assert clock.now == 0.0
    assert call() == 2


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
    give(job.manager, storage=RetryingStorage(storage, JumpingClock()))
    for step in (1, 2, 2):
        job.save(step)
    assert job.load()[0] == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "latest",
        "step_2",
    ]
    operations = {name for name in vars(Storage) if not name.startswith("_")}
    assert {name for name, *_ in storage.failed} >= operations - {"unlink", "make_name"}


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
    monkeypatch.setattr(directory_save, "write_shards", write_shards)
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
