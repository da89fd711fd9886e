"""Background activity harms no save: a cleanup that wakes up late, another manager of the process,
another job that prunes while this one reads."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from kempnerforge.checkpoint import AsyncCheckpointer, async_save
from kempnerforge.checkpoint.bulk import directory_save, shards
from kempnerforge.checkpoint.errors import StorageTimeoutError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol import prune
from kempnerforge.checkpoint.runtime.background import BackgroundCall
from kempnerforge.checkpoint.runtime.process import THIS_PROCESS
from kempnerforge.checkpoint.runtime.storage import LocalStorage, revocable
from kempnerforge.config.schema import AsyncCheckpointMode
from tests.checkpoint.effects import give
from tests.checkpoint.storages import Gates, NoExchange
from tests.checkpoint.training import Job

LONG_S = 60.0

DEEP = """
import os
for _ in range(3000):
    os.mkdir("deeper")
    os.chdir("deeper")
"""


def job_in(directory: Path, **options: Any) -> Job:
    return Job(directory, 0, seed=1, **options)


def names_in(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


def test_cleaning_up_that_wakes_up_during_the_next_save_leaves_it_alone(tmp_path: Path) -> None:
    job = job_in(tmp_path, commit_timeout_s=300.0)
    job.save(1)
    root = tmp_path / "checkpoints"
    whole = names_in(root / "step_1")
    (
        root / f".trash-step_0-{THIS_PROCESS.new_save_id()}"
    ).mkdir()  # the load has something to remove
    wake, woken = threading.Event(), threading.Event()

    def hang(path: Path) -> None:
        wake.wait(LONG_S)
        woken.set()

    give(job.manager, storage=Gates("checkpoint load", remove_tree=hang))
    job.manager._timeout_s = 20.0  # a tenth of it for cleaning up
    assert job.load()[0] == 1
    job.manager._timeout_s = 300.0

    def wake_up(source: Path, target: Path) -> None:
        wake.set()
        assert woken.wait(LONG_S)

    give(job.manager, storage=Gates("writing", rename=wake_up))
    job.save(2)
    assert names_in(root / "step_2") == whole
    assert (root / "latest").readlink() == Path("step_2")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")
@pytest.mark.parametrize("mode", list(AsyncCheckpointMode))
def test_a_writer_of_a_bare_directory_that_was_given_up_changes_no_later_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: AsyncCheckpointMode
) -> None:
    wake = threading.Event()
    hung: list[threading.Thread] = []

    def write_shards(*args: Any, **options: Any) -> Any:
        if not hung:
            hung.append(threading.current_thread())
            assert wake.wait(LONG_S)
        return shards.write_shards(*args, **options)

    monkeypatch.setattr(directory_save, "write_shards", write_shards)
    checkpointer = AsyncCheckpointer(mode)
    place = tmp_path / "alone"

    def save(value: float, to: Path) -> None:
        checkpointer.save({"x": torch.full((3,), value)}, str(to))
        checkpointer.wait()

    monkeypatch.setattr(async_save, "_DEADLINE_S", 1.0)
    with pytest.raises(StorageTimeoutError):
        save(1.0, place)
    monkeypatch.setattr(async_save, "_DEADLINE_S", 10 * LONG_S)
    save(2.0, place)
    save(3.0, tmp_path / "another")
    wake.set()
    hung[0].join(LONG_S)
    assert not hung[0].is_alive()

    state = {"x": torch.zeros(3)}
    dcp_load(state, checkpoint_id=str(place))
    assert state["x"].tolist() == [2.0] * 3
    save(4.0, place)
    assert names_in(place) == [".metadata", "__0_0.distcp"]


def test_an_interrupted_wait_leaves_the_save_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(tmp_path, async_mode=AsyncCheckpointMode.async_)
    job.save(1)
    interrupted: list[bool] = []

    def result(call: BackgroundCall[Any]) -> Any:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return given(call)

    given = BackgroundCall.result
    monkeypatch.setattr(BackgroundCall, "result", result)
    with pytest.raises(KeyboardInterrupt):
        job.manager.wait()
    job.manager.wait()
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_1")


def test_a_call_that_was_given_up_on_is_refused_what_it_does_next(tmp_path: Path) -> None:
    given_up = False
    storage = revocable(LocalStorage(), revoked=lambda: given_up)
    storage.write(tmp_path / "one", b"1")
    given_up = True
    with pytest.raises(StorageTimeoutError, match="write: too late"):
        storage.write(tmp_path / "two", b"2")
    assert names_in(tmp_path) == ["one"]


def test_a_leftover_too_deep_to_be_removed_is_no_error_of_the_save(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.save(1)
    root = tmp_path / "checkpoints"
    leftover = root / f".trash-step_0-{THIS_PROCESS.new_save_id()}"
    leftover.mkdir()
    try:
        subprocess.run([sys.executable, "-c", DEEP], cwd=leftover, check=True)
        job.save(2)
        assert job_in(tmp_path).load()[0] == 2
        assert names_in(root) in (
            [leftover.name, "latest", "step_1", "step_2"],
            ["latest", "step_1", "step_2"],  # Python 3.13 removes it
        )
    finally:
        subprocess.run(["rm", "-rf", str(leftover)], check=True)  # nor could pytest


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("step", [1, 2])
def test_another_manager_of_the_process_leaves_a_save_under_way_alone(
    tmp_path: Path, step: int, exchanges: bool
) -> None:
    saves = job_in(tmp_path, async_mode="async", keep_last_n=1, commit_timeout_s=300.0)
    saves.save(1, version=1)
    saves.manager.wait()
    root = tmp_path / "checkpoints"
    whole, loaded = names_in(root / "step_1"), []

    def load(*_: object) -> None:
        """Before each change of a name: the staging directory is complete, or half way."""
        loaded.append(job_in(tmp_path).load()[2]["version"])

    storage = Gates(
        "writing",
        LocalStorage() if exchanges else NoExchange(),
        rename=load,
        exchange=load,
        make_link=load,
    )
    give(saves.manager, storage=storage)
    saves.save(step, version=2)
    saves.manager.wait()
    assert loaded
    assert set(loaded) <= {1, 2}
    assert names_in(root) == ["latest", f"step_{step}"]
    assert names_in(root / f"step_{step}") == whole
    assert job_in(tmp_path).load()[2]["version"] == 2


def test_what_another_job_publishes_while_it_prunes_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = job_in(tmp_path, keep_last_n=1)
    writer.save(1)
    reader = job_in(tmp_path)
    genuine = prune.may_need_recovery

    def publish_first(found: Any) -> bool:
        if found.steps == ("step_1",):
            writer.save(2)
        return genuine(found)

    monkeypatch.setattr(prune, "may_need_recovery", publish_first)
    assert reader.load()[0] == 2
    last = reader.manager.last_load
    assert last is not None
    assert [one.partition(":")[0] for one in last.passed_over] == ["step_1"]


def test_a_named_checkpoint_whose_replacement_was_half_way_is_completed_first(
    tmp_path: Path,
) -> None:
    job = job_in(tmp_path)
    job.save(1, version=1)
    root = tmp_path / "checkpoints"

    class Death(BaseException):
        pass

    def die(source: Path, target: Path) -> None:
        if layout.parse_step(target.name) is not None:
            raise Death  # step_1 was set aside, the new version has its name not yet

    give(job.manager, storage=Gates("writing", NoExchange(), rename=die))
    with pytest.raises(Death):
        job.save(1, version=2)
    assert not (root / "step_1").exists()
    del job

    assert job_in(tmp_path).load(str(root / "step_1"))[2]["version"] == 2
    assert names_in(root) == ["latest", "step_1"]
