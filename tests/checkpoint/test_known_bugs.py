"""Bugs that other systems shipped, and that no other test of the package covers.

`docs/known-bugs.md` lists all of them.
"""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from kempnerforge.checkpoint import AsyncCheckpointer, CheckpointError, CheckpointManager
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.config.schema import CheckpointConfig
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.effects import give
from tests.checkpoint.simulated import JumpingClock
from tests.checkpoint.training import Job


def new(directory: Path, seed: int = 1, **options: Any) -> Job:
    return Job(directory, 0, seed=seed, **options)


def moments(job: Job) -> list[Any]:
    return [value.clone() for state in job.optimizer.state.values() for value in state.values()]


def test_files_that_do_not_belong_to_a_checkpoint_change_nothing_of_what_is_loaded(
    tmp_path: Path,
) -> None:
    job = new(tmp_path)
    job.train(2)
    job.save(2, note="n")
    expected = job.train(3)
    path = tmp_path / "checkpoints" / "step_2"
    for name in ("train_state.pt.bak", "scheduler_1.bin", "__9_0.distcp", "ranks/rank_00009.pt"):
        (path / name).write_bytes(b"left by an editor")
    again = new(tmp_path, seed=9)
    assert again.load() == (2, 20, {"note": "n"})
    assert again.train(3) == expected
    assert again.scheduler.state_dict() == job.scheduler.state_dict()


def test_a_checkpoint_may_be_replaced_while_what_was_loaded_from_it_is_in_use(
    tmp_path: Path,
) -> None:
    job = new(tmp_path)
    job.train(2)
    job.save(2)
    expected = job.train(2)
    again = new(tmp_path, seed=9)
    again.load()
    for _ in range(2):
        again.save(2)
    for file in (tmp_path / "checkpoints" / "step_2").rglob("*.*"):
        os.truncate(file, 0)
    assert again.train(2) == expected


def test_gradients_that_are_there_when_it_is_loaded_do_not_cost_the_moments(
    tmp_path: Path,
) -> None:
    job = new(tmp_path)
    job.train(2)
    job.save(2)
    saved, expected = moments(job), job.train(2)
    again = new(tmp_path, seed=9)
    again.train(1)
    assert any(param.grad is not None for param in again.model.parameters())
    again.load()
    assert all(map(torch.equal, moments(again), saved))
    assert again.train(2) == expected


@pytest.mark.parametrize("mode", ["disabled", "async"])
def test_two_jobs_of_one_process_share_no_state_through_a_checkpoint(
    tmp_path: Path, mode: str
) -> None:
    job = new(tmp_path, async_mode=mode)
    job.train(2)
    job.save(2)
    job.manager.wait()
    again = new(tmp_path, seed=9, async_mode=mode)
    again.load()
    before = moments(job)
    again.train(3)
    assert all(map(torch.equal, moments(job), before))
    assert not all(map(torch.equal, moments(again), before))


def test_the_second_resume_continues_where_the_first_one_ended(tmp_path: Path) -> None:
    new(tmp_path).save(1)
    again = new(tmp_path, seed=2)
    assert again.load()[0] == 1
    again.train(2)
    again.save(3)
    assert new(tmp_path, seed=3).load()[0] == 3


@pytest.mark.parametrize("url", ["s3://bucket/run", "msc://profile/run", "gs://bucket"])
def test_a_url_is_refused_and_makes_no_directory_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="is a URL"):
        CheckpointManager(CheckpointConfig(dir=url), model, optimizer)
    with pytest.raises(ValueError, match="is a URL"):
        AsyncCheckpointer().save({"x": torch.ones(1)}, url)
    with pytest.raises(ValueError, match="is a URL"):
        resolve_resume_path(url)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_whose_files_rank_0_does_not_see_fails_the_save_and_says_why(
    tmp_path: Path,
) -> None:
    """The disks of the nodes are not shared."""

    class Elsewhere(LocalStorage):
        def size(self, path: Path) -> int:
            if path.suffix == ".distcp":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            return super().size(path)

    job, clock = new(tmp_path), JumpingClock()
    job.save(1)
    give(job.manager, storage=Elsewhere(), clock=clock)
    with pytest.raises(CheckpointError, match="must be on storage that all ranks share"):
        job.save(2)
    assert clock.now == pytest.approx(3.62)
    assert new(tmp_path).load()[0] == 1


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_checkpoints_of_another_program_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    """A copy from elsewhere has no manifest; whoever put it there may want it."""
    root = tmp_path / "checkpoints"
    for step in (1, 50):
        dcp_save({"x": torch.ones(2)}, checkpoint_id=str(root / f"step_{step}"))
        (root / f"step_{step}" / "train_state.pt").write_bytes(b"state")
    job = new(tmp_path, keep_last_n=1)
    for step in (2, 3, 4):
        job.save(step)
    assert sorted(path.name for path in root.glob("step_*")) == ["step_1", "step_4", "step_50"]
    assert job.load()[0] == 4


def test_a_checkpoint_that_was_moved_to_an_archive_is_loaded_and_retired_through_its_link(
    tmp_path: Path,
) -> None:
    """Deleting through the link would empty the archive, or fail on one rank only."""
    root, archive = tmp_path / "checkpoints", tmp_path / "archive"
    job = new(tmp_path, keep_last_n=1)
    job.save(1)
    (root / "step_1").rename(archive)
    (root / "step_1").symlink_to(archive)
    assert new(tmp_path, seed=2).load()[0] == 1
    job.save(2)
    assert sorted(path.name for path in root.iterdir()) == ["latest", "step_2"]
    assert (archive / "manifest.json").exists()
