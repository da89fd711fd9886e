"""What a save knows about existing checkpoints is read once, and checked at every save."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint.format import layout, manifest
from kempnerforge.checkpoint.protocol import prune
from kempnerforge.checkpoint.protocol.catalog import State, read_catalog
from kempnerforge.checkpoint.protocol.register import NOTE, Register
from kempnerforge.checkpoint.runtime.process import THIS_PROCESS
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint.effects import give, runtime
from tests.checkpoint.newer import make_newer
from tests.checkpoint.training import Job


class Counting(LocalStorage):
    """Notes which manifests are read, and how often a directory is listed."""

    def __init__(self) -> None:
        self.manifests: list[str] = []
        self.calls: Counter[str] = Counter()

    def read(self, path: Path) -> bytes:
        if path.name == layout.MANIFEST:
            self.manifests.append(path.parent.name)
        return super().read(path)

    def names(self, directory: Path) -> tuple[str, ...]:
        self.calls["names"] += 1
        return super().names(directory)

    def scan(self, directory: Path) -> Any:
        self.calls["scan"] += 1
        return super().scan(directory)

    def stamps(self, directory: Path, files: Any) -> Any:
        self.calls["stamps"] += len(files)
        return super().stamps(directory, files)


@pytest.fixture
def storage() -> Counting:
    return Counting()


def job_in(directory: Path, storage: Counting, **options: Any) -> Job:
    job = Job(directory, 0, seed=1, **{"keep_last_n": 0, **options})
    give(job.manager, storage=storage)
    return job


def steps_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("step_*"))


def sequences(root: Path) -> dict[str, int]:
    return {entry.path.name: entry.sequence for entry in read_catalog(root, LocalStorage()).entries}


def test_a_save_reads_no_manifest_and_lists_the_directory_once(
    tmp_path: Path, storage: Counting
) -> None:
    job = job_in(tmp_path, storage)
    for step in range(1, 12):
        job.save(step)
    storage.manifests.clear()
    storage.calls.clear()
    job.save(12)
    assert storage.manifests == ["step_12", "step_12"]  # whether there is one to replace
    assert storage.calls == {"scan": 1}
    assert sequences(tmp_path / "checkpoints")["step_12"] == 12


def saved(directory: Path, storage: Counting, *steps: int, **options: Any) -> Path:
    """The checkpoint directory of a job that has ended."""
    job = job_in(directory, storage, **options)
    for step in steps:
        job.save(step)
    storage.manifests.clear()
    return directory / "checkpoints"


def changed_by_operator(root: Path) -> None:
    (root / "touched").mkdir()


def test_a_start_reads_no_head_where_nobody_has_changed_the_directory(
    tmp_path: Path, storage: Counting
) -> None:
    root = saved(tmp_path, storage, 1, 2, 3, 4, 5)
    resumed = job_in(tmp_path, storage)
    assert resumed.load()[0] == 5
    assert set(storage.manifests) == {"step_5"}
    storage.manifests.clear()
    resumed.save(6)
    assert storage.manifests == ["step_6", "step_6"]
    assert sequences(root)["step_6"] == 6


def test_a_first_save_without_a_load_reads_none_either(tmp_path: Path, storage: Counting) -> None:
    root = saved(tmp_path, storage, 1, 2, 3)
    job_in(tmp_path, storage).save(4)
    assert storage.manifests == ["step_4", "step_4"]
    assert sequences(root)["step_4"] == 4


def test_a_load_reads_each_head_once_where_somebody_has(tmp_path: Path, storage: Counting) -> None:
    root = saved(tmp_path, storage, 1, 2, 3, 4, 5)
    changed_by_operator(root)
    resumed = job_in(tmp_path, storage)
    assert resumed.load()[0] == 5
    read_by_load = Counter(storage.manifests)
    assert all(read_by_load[f"step_{step}"] == 1 for step in range(1, 5)), read_by_load
    storage.manifests.clear()
    resumed.save(6)
    assert storage.manifests == ["step_6", "step_6"]
    job_in(tmp_path, storage).load()
    assert set(storage.manifests) == {"step_6"}


@pytest.mark.parametrize("begins", ["load", "save"])
def test_what_came_between_two_runs_has_its_place(
    tmp_path: Path, storage: Counting, begins: str
) -> None:
    root = saved(tmp_path, storage, 1, 2)
    shutil.copytree(root / "step_1", root / "step_3")
    _set_head(root / "step_3", sequence=40, step=3)
    job = job_in(tmp_path, storage)
    if begins == "load":
        job.load()
    job.save(4)
    assert sequences(root)["step_4"] == 41


@pytest.mark.parametrize("how", ["added", "exchanged"])
def test_what_came_in_the_very_moment_of_the_last_change_has_its_place(
    tmp_path: Path, storage: Counting, how: str
) -> None:
    root = saved(tmp_path, storage, 1, 2)
    before = root.stat()
    shutil.copytree(root / "step_1", tmp_path / "other")
    _set_head(tmp_path / "other", sequence=40, step=3 if how == "added" else 1)
    if how == "exchanged":
        (root / "step_1").rename(tmp_path / "away")
    (tmp_path / "other").rename(root / ("step_3" if how == "added" else "step_1"))
    os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))
    job_in(tmp_path, storage).save(4)
    assert sequences(root)["step_4"] == 41


def test_what_was_made_anew_under_the_same_inode_between_two_runs_has_its_place(
    tmp_path: Path, storage: Counting
) -> None:
    root = saved(tmp_path, storage, 1, 2)
    _set_head(root / "step_1", sequence=70)  # in place: names and inodes are what they were
    changed_by_operator(root)
    (root / "touched").rmdir()
    job_in(tmp_path, storage).save(3)
    assert sequences(root)["step_3"] == 71


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("keep_last_n", [0, 2])
def test_each_start_of_many_has_a_note_that_holds(
    tmp_path: Path, storage: Counting, keep_last_n: int, times: int
) -> None:
    for step in (1, 2, 3, 4, 5):
        saved(tmp_path, storage, *(step,) * times, keep_last_n=keep_last_n)  # or replaced
        job_in(tmp_path, storage).load()
        assert set(storage.manifests) == {f"step_{step}"}


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"marks": 1, "highest": 9}'])
def test_a_note_that_says_nothing_is_none(tmp_path: Path, storage: Counting, note: bytes) -> None:
    root = saved(tmp_path, storage, 1, 2, 3)
    storage.leave_note(root, NOTE, note)
    job_in(tmp_path, storage).save(4)
    assert {"step_1", "step_2", "step_3"} < set(storage.manifests)
    assert sequences(root)["step_4"] == 4


def test_a_note_is_of_one_directory_and_not_of_its_copy(tmp_path: Path, storage: Counting) -> None:
    root = saved(tmp_path / "one", storage, 1, 2, 3)
    note = storage.note(root, NOTE)
    assert note is not None
    other = tmp_path / "other" / "checkpoints"
    shutil.copytree(root, other, symlinks=True)
    storage.leave_note(other, NOTE, note)
    os.utime(other, ns=(root.stat().st_atime_ns, root.stat().st_mtime_ns))
    job_in(tmp_path / "other", storage).save(4)
    assert {"step_1", "step_2", "step_3"} < set(storage.manifests)
    assert sequences(other)["step_4"] == 4


def test_a_start_with_retention_reads_the_heads_that_decide(
    tmp_path: Path, storage: Counting
) -> None:
    root = saved(tmp_path, storage, 1, 2, 3, 4)
    resumed = job_in(tmp_path, storage, keep_last_n=2)
    resumed.load(str(root / "step_3"))
    storage.manifests.clear()
    resumed.save(5)
    assert {"step_1", "step_2", "step_3", "step_4"} <= set(storage.manifests)
    assert steps_in(root) == ["step_3", "step_5"]  # which does not descend from step_4


def test_where_other_machines_are_seen_late_no_note_is_left_and_none_believed(
    tmp_path: Path, storage: Counting
) -> None:
    saved(tmp_path, storage, 1, 2, 3)

    class Lagging(Counting):
        def may_lag(self, path: Path) -> bool:
            return True

        def leave_note(self, directory: Path, name: str, note: bytes) -> None:
            pytest.fail("left")

    lagging = Lagging()
    job_in(tmp_path, lagging).save(4)
    assert {"step_1", "step_2", "step_3"} < set(lagging.manifests)


def test_what_a_start_has_to_say_is_said_by_each(
    tmp_path: Path, storage: Counting, caplog: pytest.LogCaptureFixture
) -> None:
    root = saved(tmp_path, storage, 1, 2, keep_last_n=0)
    make_newer(root / "step_1")
    changed_by_operator(root)
    for step in (3, 4):
        caplog.clear()
        job_in(tmp_path, storage).save(step)
        assert "left alone" in caplog.text


def test_a_job_that_died_in_a_save_leaves_no_note_that_holds(
    tmp_path: Path, storage: Counting
) -> None:
    root = saved(tmp_path, storage, 1, 2, 3)
    (root / ".staging-step_4-00c0ffee00c0ffee").mkdir()
    job_in(tmp_path, storage).load()
    assert {"step_1", "step_2", "step_3"} <= set(storage.manifests)
    assert steps_in(root) == ["step_1", "step_2", "step_3"]


def test_a_load_reads_only_what_latest_names_until_it_has_it(
    tmp_path: Path, storage: Counting
) -> None:
    job = job_in(tmp_path, storage)
    for step in range(1, 6):
        job.save(step)
    storage.manifests.clear()
    assert job.manager.peek_saved_step() == 5
    assert storage.manifests == ["step_5"]


def test_retention_looks_again_at_those_that_count_and_reads_none(
    tmp_path: Path, storage: Counting
) -> None:
    job = job_in(tmp_path, storage, keep_last_n=3)
    for step in range(1, 6):
        job.save(step)
    storage.manifests.clear()
    storage.calls.clear()
    job.save(6)
    assert storage.manifests == ["step_6", "step_6"]
    assert storage.calls == {"scan": 1, "stamps": 4}
    assert steps_in(tmp_path / "checkpoints") == ["step_4", "step_5", "step_6"]


def test_what_another_deleted_does_not_count(tmp_path: Path, storage: Counting) -> None:
    root = tmp_path / "checkpoints"
    job = job_in(tmp_path, storage, keep_last_n=3)
    for step in (1, 2, 3):
        job.save(step)
    shutil.rmtree(root / "step_2")
    job.save(4)
    assert steps_in(root) == ["step_1", "step_3", "step_4"]


def test_what_another_put_there_counts_and_comes_in_its_place(
    tmp_path: Path, storage: Counting
) -> None:
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    job = job_in(tmp_path, storage, keep_last_n=2)
    for step in (1, 2, 3):
        job.save(step)
        shutil.copytree(root / f"step_{step}", elsewhere / f"step_{step}")
    _set_head(elsewhere / "step_1", sequence=40)
    shutil.copytree(elsewhere / "step_1", root / "step_1")
    job.save(4)
    assert sequences(root)["step_4"] == 41
    assert steps_in(root) == ["step_3", "step_4"]  # which step_4 descends from


def test_a_checkpoint_that_another_exchanged_is_read_again(
    tmp_path: Path, storage: Counting
) -> None:
    root = tmp_path / "checkpoints"
    job = job_in(tmp_path, storage)
    for step in (1, 2):
        job.save(step)
    shutil.copytree(root / "step_1", tmp_path / "other")
    _set_head(tmp_path / "other", sequence=70)
    (root / "step_1").rename(tmp_path / "away")
    (tmp_path / "other").rename(root / "step_1")
    job.save(3)
    assert sequences(root)["step_3"] == 71


def test_one_that_was_made_anew_under_the_same_inode_is_read_again(
    tmp_path: Path, storage: Counting
) -> None:
    root = tmp_path / "checkpoints"
    job = job_in(tmp_path, storage)
    for step in (1, 2):
        job.save(step)
    _set_head(root / "step_1", sequence=70)  # in place: names and inodes are what they were
    (root / "touched").mkdir()
    job.save(3)
    assert sequences(root)["step_3"] == 71


@pytest.mark.parametrize("damage", ["removed", "emptied"])
def test_a_manifest_that_was_damaged_in_place_does_not_count_for_retention(
    tmp_path: Path, storage: Counting, damage: str
) -> None:
    root = tmp_path / "checkpoints"
    job = job_in(tmp_path, storage, keep_last_n=2)
    for step in (1, 2):
        job.save(step)
    if damage == "removed":
        (root / "step_2" / "manifest.json").unlink()
    else:
        (root / "step_2" / "manifest.json").write_bytes(b"")
    job.save(3)
    assert steps_in(root) == ["step_1", "step_2", "step_3"]
    job.save(4)
    assert steps_in(root) == ["step_2", "step_3", "step_4"]


def test_two_managers_of_a_process_see_each_others_saves(tmp_path: Path, storage: Counting) -> None:
    root = tmp_path / "checkpoints"
    one, other = job_in(tmp_path, storage), job_in(tmp_path, storage)
    for step in range(1, 7):
        (one if step % 2 else other).save(step)
    assert sequences(root) == {f"step_{step}": step for step in range(1, 7)}


def test_what_another_manager_published_just_before_this_one_began_to_write_is_counted(
    tmp_path: Path, storage: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkpoints"
    one, other = job_in(tmp_path, storage), job_in(tmp_path, storage)
    one.save(1)
    genuine, waiting = prune.make_ready, [True]

    def make_ready(*args: Any) -> None:
        genuine(*args)
        if waiting and waiting.pop():
            other.save(2)

    monkeypatch.setattr(prune, "make_ready", make_ready)
    one.save(3)
    assert sequences(root) == {"step_1": 1, "step_2": 2, "step_3": 3}


def test_where_inodes_say_nothing_every_manifest_is_compared(
    tmp_path: Path, storage: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "checkpoints"
    job = job_in(tmp_path, storage)
    job.save(1)
    job.save(2)
    monkeypatch.setattr(
        Counting, "scan", lambda _, directory: dict.fromkeys(os.listdir(directory), 0)
    )
    _set_head(root / "step_1", sequence=70)
    job.save(3)
    assert sequences(root)["step_3"] == 71


def test_the_register_holds_what_the_catalog_says(tmp_path: Path, storage: Counting) -> None:
    root = tmp_path / "checkpoints"
    job = job_in(tmp_path, storage)
    for step in (1, 2, 3):
        job.save(step)
    (root / "step_4").mkdir()
    (root / "step_5").write_text("no directory")
    (root / "step_6").symlink_to("nowhere")
    (root / "step_7").symlink_to(root / "step_2")
    (root / ".trash-step_9-00c0ffee00c0ffee").mkdir()
    survey, catalog = (
        Register(THIS_PROCESS).look(root, runtime(storage)),
        read_catalog(root, storage),
    )
    read = {entry.path.name: (entry.state, entry.head) for entry in catalog.entries}
    assert {entry.path.name: (entry.state, entry.head) for entry in survey.entries()} == read
    assert sorted(read) == ["step_1", "step_2", "step_3", "step_4", "step_7"]
    assert survey.leftovers() == catalog.leftovers == (".trash-step_9-00c0ffee00c0ffee",)
    assert survey.abandoned() == catalog.abandoned()
    assert survey.next_sequence() == catalog.next_sequence() == 4
    assert [name for name, (state, _) in sorted(read.items()) if state is State.torn] == [
        "step_4",
        "step_7",
    ]


def _set_head(checkpoint: Path, **values: Any) -> None:
    path = checkpoint / layout.MANIFEST
    sealed = manifest.decode(path.read_bytes(), where="m")
    changed = {name: getattr(sealed, name) for name in sealed.__slots__}
    path.write_bytes(manifest.encode(manifest.Manifest(**{**changed, **values})))
