"""Two jobs that both believe they own a directory lose nothing, whatever let them both in."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import DirectoryInUseError
from kempnerforge.checkpoint.format import manifest
from kempnerforge.checkpoint.protocol.catalog import read_catalog
from kempnerforge.checkpoint.protocol.effects import Unlocked
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint.effects import AnotherJob, give
from tests.checkpoint.ranks import run_ranks
from tests.checkpoint.storages import Gates
from tests.checkpoint.training import Job
from tests.checkpoint.two_job_ranks import replaces_a_foreign_step


class Process:
    """A job that knows of no other: its lock excludes nobody, and its ids are its own."""

    def __init__(self, directory: Path, seed: int, **options: Any) -> None:
        self.job = Job(directory, 0, seed=seed, **options)
        give(self.job.manager, access=Unlocked(), process=AnotherJob())

    def save(self, step: int) -> None:
        self.job.save(step)

    def load(self, path: str | None = None) -> int:
        return self.job.load(path)[0]


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def save_ids(directory: Path) -> dict[str, str]:
    entries = read_catalog(directory / "checkpoints", LocalStorage()).entries
    return {entry.path.name: entry.head.save_id for entry in entries if entry.head is not None}


def test_neither_deletes_what_the_other_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = Process(tmp_path, 1, keep_last_n=1)
    one.save(1)
    other = Process(tmp_path, 2, keep_last_n=1)
    assert other.load() == 1
    other.save(10)  # which retires step 1: it goes on from there
    one.save(2)
    other.save(11)
    one.save(3)
    assert names_in(tmp_path) == ["latest", "step_10", "step_11", "step_2", "step_3"]
    ids = save_ids(tmp_path)
    waiting = f"deletes nothing while there are saves of another job: step_10 ({ids['step_10']})"
    assert waiting in caplog.text
    assert (
        "step_10 was committed by another job since this one loaded or first saved" in caplog.text
    )


def test_jobs_that_both_start_in_an_empty_directory_keep_each_others_saves(tmp_path: Path) -> None:
    one, other = (Process(tmp_path, seed, keep_last_n=1) for seed in (1, 2))
    assert [one.load(), other.load()] == [0, 0]
    for step in (1, 2):
        one.save(step)
        other.save(10 + step)
    assert names_in(tmp_path) == ["latest", "step_1", "step_11", "step_12", "step_2"]


@pytest.mark.parametrize("begins", ["load", "save"])
def test_a_start_that_has_read_no_heads_knows_a_foreign_save_by_them(
    tmp_path: Path, begins: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = Process(tmp_path, 1, keep_last_n=0)
    for step in (1, 2, 3):
        before.save(step)
    one, other = (Process(tmp_path, seed, keep_last_n=2) for seed in (1, 2))
    if begins == "load":
        assert one.load() == 3
    else:
        one.save(4)
    other.load(str(tmp_path / "checkpoints" / "step_3"))
    other.save(10)
    caplog.clear()
    one.save(5)
    said = [line for line in caplog.messages if "was committed by another job since" in line]
    assert [line.partition(" ")[0] for line in said] == ["step_10"]
    assert "step_10" in names_in(tmp_path)


class Hiding(LocalStorage):
    """Refuses to read one checkpoint."""

    hidden = ""

    def read(self, path: Path) -> bytes:
        if path.parent.name == self.hidden:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return super().read(path)


def test_a_foreign_save_that_cannot_be_read_at_first_is_one_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = Process(tmp_path, 1)
    before.save(1)
    one, other = (Process(tmp_path, seed, keep_last_n=1) for seed in (1, 2))
    storage = Hiding()
    give(one.job.manager, storage=storage)
    assert [one.load(), other.load()] == [1, 1]
    other.save(10)
    storage.hidden = "step_10"
    one.save(2)
    storage.hidden = ""
    one.save(3)
    assert "step_10 was committed by another job since" in caplog.text
    assert "step_10" in names_in(tmp_path)


def test_a_step_that_the_other_saved_is_not_replaced(tmp_path: Path) -> None:
    one, other = (Process(tmp_path, seed) for seed in (1, 2))
    one.save(1)
    assert other.load() == 1
    other.save(2)
    before = save_ids(tmp_path)
    with pytest.raises(DirectoryInUseError) as caught:
        one.save(2)
    assert f"has committed step 2 as save {before['step_2']} since" in str(caught.value)
    assert save_ids(tmp_path) == before
    assert names_in(tmp_path) == ["latest", "step_1", "step_2"]
    one.save(3)
    other.save(2)  # its own
    assert save_ids(tmp_path)["step_2"] != before["step_2"]


def test_a_step_that_the_other_published_while_this_one_wrote_is_not_replaced(
    tmp_path: Path,
) -> None:
    one, other = (Process(tmp_path, seed) for seed in (1, 2))
    one.save(1)
    other.load()
    waiting = [other]

    def publish_first(path: Path, data: bytes) -> None:
        if waiting and ".staging-step_2-" in str(path):
            waiting.pop().save(2)

    give(one.job.manager, storage=Gates("", write=publish_first))
    with pytest.raises(DirectoryInUseError, match="has committed step 2 as save"):
        one.save(2)
    assert list(save_ids(tmp_path)) == ["step_1", "step_2"]
    assert other.load() == 2


def test_every_rank_is_told_that_the_step_is_anothers(tmp_path: Path) -> None:
    one, other = run_ranks(replaces_a_foreign_step, tmp_path, world=2)
    assert one == other
    assert one.startswith(
        f"DirectoryInUseError: saving step 2 to {tmp_path / 'checkpoints'} failed"
    )


def test_a_save_that_another_job_has_under_way_stays_and_what_dead_runs_left_goes(
    tmp_path: Path,
) -> None:
    root = tmp_path / "checkpoints"
    root.mkdir()
    (root / ".staging-step_7-0123456789abcdef").mkdir()
    one = Process(tmp_path, 1)
    one.save(1)
    assert names_in(tmp_path) == ["latest", "step_1"]
    staging = ".staging-step_8-00c0ffee00c0ffee"
    (root / staging).mkdir()
    (root / ".latest-00c0ffee00c0ffee").symlink_to("step_8")
    one.save(2)
    assert one.load() == 2
    one.save(3)
    kept = [".latest-00c0ffee00c0ffee", staging]
    assert names_in(tmp_path) == [*kept, "latest", "step_1", "step_2", "step_3"]
    later = Process(tmp_path, 3)
    later.load()
    later.save(4)
    assert names_in(tmp_path) == ["latest", "step_2", "step_3", "step_4"]


def test_what_another_left_goes_once_the_directory_is_taken_anew(tmp_path: Path) -> None:
    one = Process(tmp_path, 1)
    one.save(1)
    (tmp_path / "checkpoints" / ".staging-step_8-00c0ffee00c0ffee").mkdir()
    one.save(2)
    assert ".staging-step_8-00c0ffee00c0ffee" in names_in(tmp_path)
    give(one.job.manager, access=Unlocked())  # as after a loss and a load
    one.save(3)
    assert names_in(tmp_path) == ["latest", "step_1", "step_2", "step_3"]


def test_ones_own_save_that_failed_is_cleaned_up_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Process(tmp_path, 1)
    one.save(1)
    with monkeypatch.context() as failing:
        failing.setattr(LocalStorage, "remove_tree", lambda *_: 1 / 0)
        failing.setattr(LocalStorage, "make_link", lambda *_: 1 / 0)
        with pytest.raises(Exception, match="division by zero"):
            one.save(2)
    one.save(3)
    assert [name for name in names_in(tmp_path) if name.startswith(".")] == []


def test_who_saved_while_this_job_only_trained_loses_nothing(tmp_path: Path) -> None:
    one, other = (Process(tmp_path, seed, keep_last_n=1) for seed in (1, 2))
    one.save(1)
    assert other.load() == 1
    one.save(2)
    one.save(3)
    other.save(4)  # of which it did not go on
    assert names_in(tmp_path) == ["latest", "step_3", "step_4"]


def test_once_the_other_ones_saves_are_gone_or_loaded_retention_goes_on(tmp_path: Path) -> None:
    one, other = (Process(tmp_path, seed, keep_last_n=1) for seed in (1, 2))
    one.save(1)
    other.load()
    other.save(10)
    one.save(2)
    assert names_in(tmp_path) == ["latest", "step_10", "step_2"]
    shutil.rmtree(tmp_path / "checkpoints" / "step_10")
    one.save(3)
    assert names_in(tmp_path) == ["latest", "step_3"]
    other.save(11)
    assert one.load() == 11
    one.save(12)
    assert names_in(tmp_path) == ["latest", "step_12"]


def test_a_job_with_an_old_view_of_the_directory_is_noticed_by_its_place(tmp_path: Path) -> None:
    one = _resumed_from_step_3(tmp_path)
    parent = save_ids(tmp_path)["step_2"]
    _commit_as(tmp_path, "step_9", save_id="a" * 16, sequence=3, parent=parent)
    one.save(4)
    assert names_in(tmp_path) == ["latest", "step_1", "step_2", "step_3", "step_4", "step_9"]


def test_one_from_another_run_or_an_archive_counts_as_it_always_did(tmp_path: Path) -> None:
    one = _resumed_from_step_3(tmp_path)
    _commit_as(tmp_path, "step_9", save_id="a" * 16, sequence=3, parent="b" * 16)
    one.save(4)
    assert names_in(tmp_path) == ["latest", "step_4"]


def _resumed_from_step_3(directory: Path) -> Process:
    first = Process(directory, 1)
    for step in (1, 2, 3):
        first.save(step)
    one = Process(directory, 1, keep_last_n=1)
    assert one.load() == 3
    return one


def _commit_as(directory: Path, name: str, *, save_id: str, sequence: int, parent: str) -> None:
    """A copy of step 1 with another place in the order."""
    root = directory / "checkpoints"
    shutil.copytree(root / "step_1", root / name)
    path = root / name / "manifest.json"
    found = manifest.decode(path.read_bytes(), where="")
    changed = {field: getattr(found, field) for field in found.__dataclass_fields__}
    changed |= {"save_id": save_id, "sequence": sequence, "parent": parent}
    changed["step"] = int(name.removeprefix("step_"))
    path.write_bytes(manifest.encode(manifest.Manifest(**changed)))
