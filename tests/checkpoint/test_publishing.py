"""What a save that fails during publication leaves: nothing, or what its error says.

Every operation of the publication fails in turn, once and permanently, and the error is compared
with what the next start loads. `test_histories.py` covers deaths and power cuts.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import CheckpointError, StillPublishedError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.effects import Unlocked
from kempnerforge.checkpoint.protocol.pointer import Pointer, PointerKind
from kempnerforge.checkpoint.runtime.stale import RetryingStorage
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint.effects import give
from tests.checkpoint.memory_storage import MemoryStorage
from tests.checkpoint.pointer_jobs import save_with_a_latest_that_cannot_be_placed
from tests.checkpoint.ranks import run_ranks
from tests.checkpoint.simulated import JumpingClock
from tests.checkpoint.storages import Refusing
from tests.checkpoint.test_histories import Histories
from tests.checkpoint.training import Job

KINDS = list(PointerKind)


class Breaking(MemoryStorage):
    """Works for a while, then fails at one change, or at every one."""

    def __init__(self, *, exchanges: bool) -> None:
        super().__init__(exchanges=exchanges)
        self.left: int | None = None
        self.for_good = False

    def _live(self) -> None:
        super()._live()
        if self.left is None:
            return
        self.left -= 1
        if self.left == -1 or (self.for_good and self.left < 0):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def prepared(kind: PointerKind, *, exchanges: bool, again: bool) -> tuple[Histories, Breaking]:
    """Step 0 is saved, and step 1 too if it is to be saved again."""
    history = Histories()
    history.start(exchanges=exchanges, keep=0, kind=kind)
    history.save(step=0)
    if again:
        history.save(step=1)
    storage = Breaking(exchanges=exchanges)
    storage.top, storage.watcher = history.storage.top, history.watch
    history.storage = storage
    return history, storage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize(
    ("exchanges", "again"), [(True, False), (True, True), (False, True)], ids=str
)
def test_the_error_of_a_save_says_what_the_next_start_takes_whichever_operation_fails(
    kind: PointerKind, for_good: bool, exchanges: bool, again: bool
) -> None:
    seen = set()
    for works in range(100):
        history, storage = prepared(kind, exchanges=exchanges, again=again)
        older = history.version
        storage.left, storage.for_good = works, for_good
        error = None
        try:
            history.attempt(1)
        except CheckpointError as raised:
            error = raised
        storage.left = None
        history.holds()
        history.note_unacknowledged()
        found = history.choose(access=Unlocked())
        assert found is not None
        if error is None:
            assert found.version == older + 1
            break
        on_disk = history.on_disk(history.root()).get(1)
        is_there = on_disk is not None and on_disk.version == older + 1
        says_so = type(error) is StillPublishedError
        seen.add(says_so)
        assert says_so or not is_there
        if found.version == older + 1:
            assert says_so
        history.resume()
        history.save(step=2)
        history.holds()
    else:
        raise AssertionError("the save never came to its end")
    assert seen == {False, True} if for_good else seen == {False}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [False, True], ids=["first version", "second version"])
def test_a_death_before_any_operation_leaves_a_whole_version_and_a_latest_that_leads_to_one(
    kind: PointerKind, again: bool
) -> None:
    versions = set()
    for survives in range(100):
        history, _ = prepared(kind, exchanges=True, again=again)
        older = history.version
        history.save_and_die(step=1, survives=survives)
        history.holds()  # at every instant, and after every power cut that could have come then
        if history.running:
            break
        found = history.choose(access=Unlocked())
        assert found is not None
        versions.add(found.version - older)
        history.resume()
        history.save(step=2)
        history.holds()
    else:
        raise AssertionError("the save never came to its end")
    assert versions == {0, 1}


def job_with(directory: Path, storage: LocalStorage, **options: Any) -> Job:
    job = Job(directory, 0, seed=1, **options)
    clock = JumpingClock()
    give(job.manager, storage=RetryingStorage(storage, clock), clock=clock)
    return job


def listed(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def placing(name: str, *files: str) -> bool:
    return name == "rename" and files[1] == "latest"


def publishing_or_back(name: str, *files: str) -> bool:
    """The last rename, and what takes the one before it back."""
    is_back = name == "rename" and files[1].startswith(".staging")
    return placing(name, *files) or is_back


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EPERM, errno.ENOSPC])
def test_saves_that_fail_at_latest_leave_nothing_and_fill_no_disk(
    tmp_path: Path, kind: PointerKind, code: int
) -> None:
    job_with(tmp_path, LocalStorage(), latest=kind).save(1)
    refusing = Refusing(code, placing)
    job = job_with(tmp_path, refusing, latest=kind, keep_last_n=2)
    for step in (1, 2, 3, 4):
        with pytest.raises(CheckpointError) as caught:
            job.save(step)
        assert type(caught.value) is not StillPublishedError
        assert f"checkpoints/step_{step} cannot be published" in str(caught.value)
        assert os.strerror(code) in str(caught.value)
        assert "nothing of it is left, and `latest` names step_1" in str(caught.value)
        assert listed(tmp_path) == ["latest", "step_1"]
    assert refusing.refused == ["rename"] * 4
    assert job_with(tmp_path, LocalStorage()).load()[0] == 1
    again = job_with(tmp_path, LocalStorage(), latest=kind, keep_last_n=2)
    again.save(5)
    assert listed(tmp_path) == ["latest", "step_1", "step_5"]


def test_a_version_that_was_replaced_has_its_name_and_its_bytes_again(tmp_path: Path) -> None:
    job = job_with(tmp_path, LocalStorage())
    job.save(1, version=1)
    give(job.manager, storage=Refusing(errno.EIO, placing))
    with pytest.raises(CheckpointError, match="nothing of it is left"):
        job.save(1, version=2)
    assert job_with(tmp_path, LocalStorage()).load()[2] == {"version": 1}


def test_what_cannot_be_taken_back_is_said_to_be_there_and_retention_goes_on(
    tmp_path: Path,
) -> None:
    job_with(tmp_path, LocalStorage()).save(1)
    job = job_with(tmp_path, Refusing(errno.EACCES, publishing_or_back), keep_last_n=2)
    for step in (2, 3, 4, 5):
        with pytest.raises(StillPublishedError) as caught:
            job.save(step)
        assert f"step_{step} cannot be published" in str(caught.value)
        assert "the checkpoint exists and is whole" in str(caught.value)
        assert "`latest` names step_1, so the next start loads that" in str(caught.value)
    assert len(listed(tmp_path)) <= 4  # latest, its target, and no more than two others
    assert "step_5" in listed(tmp_path)
    assert job_with(tmp_path, LocalStorage()).load()[0] == 1


def no_inode_and_no_way_back(name: str, *files: str) -> bool:
    return (name in ("make_link", "write") and files[0].startswith(".latest")) or (
        name == "rename" and files[1].startswith(".staging")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_latest_that_cannot_be_made_is_found_while_nothing_needs_to_be_taken_back(
    tmp_path: Path, kind: PointerKind
) -> None:
    job_with(tmp_path, LocalStorage(), latest=kind).save(1)
    job = job_with(tmp_path, Refusing(errno.ENOSPC, no_inode_and_no_way_back), latest=kind)
    for step in (1, 2):
        with pytest.raises(CheckpointError, match="No space left") as caught:
            job.save(step)
        assert type(caught.value) is not StillPublishedError
        assert listed(tmp_path) == ["latest", "step_1"]


def test_every_rank_raises_the_same_error_when_latest_cannot_be_placed(tmp_path: Path) -> None:
    found = run_ranks(save_with_a_latest_that_cannot_be_placed, tmp_path, world=2)
    assert found[0] == found[1]
    kind, message, loaded = found[0]
    assert kind == "CheckpointSaveError"
    assert "rank 0" in message
    assert "checkpoints/step_2 cannot be published" in message
    assert loaded == 1


class OldLink(LocalStorage):
    """Goes on serving the link that it first read, as some object stores behind FUSE do."""

    def __init__(self) -> None:
        self.kept: dict[Path, str | None] = {}

    def read_link(self, path: Path) -> str | None:
        if path.name != layout.LATEST:
            return super().read_link(path)
        return self.kept.setdefault(path, super().read_link(path))


def test_a_pointer_that_does_not_move_fails_the_save_and_leaves_the_old_one_for_all(
    tmp_path: Path,
) -> None:
    job_with(tmp_path, LocalStorage()).save(1)
    job = job_with(tmp_path, OldLink())
    with pytest.raises(CheckpointError, match="does not show what was written") as caught:
        job.save(2)
    assert type(caught.value) is not StillPublishedError
    assert "latest names step_1 after it was replaced by one that names step_2" in str(caught.value)
    assert listed(tmp_path) == ["latest", "step_1"]
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_1")
    assert job_with(tmp_path, LocalStorage()).load()[0] == 1


def test_a_pointer_that_somebody_else_moves_meanwhile_stays_there_and_the_save_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class RepointedAtOnce(LocalStorage):
        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            if target.name == layout.LATEST:
                target.unlink()
                target.symlink_to("step_1")

    job = job_with(tmp_path, LocalStorage())
    job.save(1)
    job.save(2)
    give(job.manager, storage=RepointedAtOnce())
    job.save(3)
    assert "names step_1: someone has changed it since" in caplog.text
    assert listed(tmp_path) == ["latest", "step_1", "step_2", "step_3"]
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_1")


# The bugs that the tests above exist for.


def test_a_link_that_is_made_only_after_the_rename_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, place = Pointer.prepare, Pointer.place

    def late(self: Pointer, target: str, *, before: str | None) -> None:
        prepare(self, target)
        place(self, target, before=before)

    job_with(tmp_path, LocalStorage()).save(1)
    monkeypatch.setattr(Pointer, "prepare", lambda self, target: None)
    monkeypatch.setattr(Pointer, "place", late)
    with pytest.raises(StillPublishedError):
        job_with(tmp_path, Refusing(errno.ENOSPC, no_inode_and_no_way_back)).save(2)
    assert listed(tmp_path) == ["latest", "step_1", "step_2"]


@pytest.mark.parametrize("bug", ["not read back", "read back"])
def test_a_pointer_that_is_not_read_back_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    if bug == "not read back":
        monkeypatch.setattr(Pointer, "_require", lambda *_: None)
    job_with(tmp_path, LocalStorage()).save(1)
    saves: Callable[[int], object] = job_with(tmp_path, OldLink()).save
    try:
        saves(2)
    except CheckpointError:
        assert bug == "read back"
    else:
        assert bug == "not read back"
