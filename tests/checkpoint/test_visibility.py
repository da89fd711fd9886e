"""A load after another machine has just saved, while this one still has an old state in its caches.

The storages cache as clients do. The real ones are two views of a directory without a common cache:
bindfs, whose kernel caches which names did not exist, and sshfs, which caches listings and links.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import CheckpointManager, UnreadableCheckpointError
from kempnerforge.checkpoint.bulk import plans, shards
from kempnerforge.checkpoint.protocol import visibility
from kempnerforge.checkpoint.protocol.storage import Stamp
from kempnerforge.checkpoint.runtime.file_systems import may_lag
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.cli.cautious import CautiousStorage
from kempnerforge.cli.mending import plan_repair
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.effects import give, runtime
from tests.checkpoint.pointer_jobs import (
    load_after_a_start_that_told_the_store,
    load_where_other_ranks_see_late,
)
from tests.checkpoint.ranks import run_ranks
from tests.checkpoint.training import Job

SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "mounted" not in request.fixturenames:
        monkeypatch.setattr(visibility, "PAUSES_S", (0.0,) * 9)


class Remembering(LocalStorage):
    """A client that answers from what it saw of a directory until it changes that itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listing = super().names(root)
        self.latest = super().read_link(root / "latest")
        self.changes = 0

    def may_lag(self, path: Path) -> bool:
        return True

    def names(self, directory: Path) -> tuple[str, ...]:
        found = super().names(directory)
        return self.listing if directory == self.root and not self.changes else found

    def read_link(self, path: Path) -> str | None:
        return self.latest if path == self.root / "latest" else super().read_link(path)

    def make_name(self, path: Path, existing: Path) -> None:
        self.changes += 1
        super().make_name(path, existing)

    def make_directory(self, path: Path) -> None:
        self.changes += 1
        super().make_directory(path)


class SeenLate(LocalStorage):
    """A client that finds a name only once it has opened what is above for the nth time."""

    def __init__(self, hidden: Path, looks: int, *, lags: bool = True) -> None:
        self.hidden, self.looks, self.lags, self.opened = hidden, looks, lags, 0

    def may_lag(self, path: Path) -> bool:
        return self.lags

    def stamps(self, directory: Path, files: Sequence[str]) -> Sequence[Stamp | None]:
        self.opened += directory == self.hidden.parent
        return super().stamps(directory, files)

    def is_directory(self, path: Path) -> bool:
        is_hidden = self.hidden in (path, *path.parents) and self.opened < self.looks
        return not is_hidden and super().is_directory(path)


def test_a_directory_that_another_rank_made_is_looked_for_until_it_is_seen(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for looks, lags, opened in (
        (0, True, 0),
        (1, True, 1),
        (9, True, 9),
        (20, True, 9),
        (20, False, 1),
    ):
        storage = SeenLate(made, looks, lags=lags)
        visibility.await_made(made, runtime(storage))
        assert storage.opened == opened


def test_a_save_looks_for_its_staging_directory_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SeenLate(tmp_path / "checkpoints", looks=2)
    job = Job(tmp_path, 0, seed=1)
    give(job.manager, storage=storage)
    seen: list[int] = []

    def write_shards(*args: Any, **options: Any) -> Any:
        seen.append(storage.opened)
        return shards.write_shards(*args, **options)

    monkeypatch.setattr(plans, "write_shards", write_shards)
    job.save(1)
    assert seen == [2]


class Replaced(Remembering):
    """`latest` is remembered, and has been replaced: it can be seen, and not be named again."""

    def __init__(self, root: Path, looks: int) -> None:
        super().__init__(root)
        self.looks = looks

    def make_name(self, path: Path, existing: Path) -> None:
        self.looks -= 1
        if self.looks >= 0:
            raise FileNotFoundError(2, "No such file or directory", str(existing))
        super().make_name(path, existing)


def test_a_latest_that_was_replaced_is_waited_for(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    job = Job(tmp_path, 0, seed=1)
    job.save(1)
    storage = Replaced(root, looks=9)
    job.save(2)
    assert visibility.look_afresh(root, runtime(storage)).latest == "step_2"
    (root / "latest").unlink()
    assert visibility.look_afresh(root, runtime(Replaced(root, looks=1))).latest is None


class Forgetful(LocalStorage):
    """A client that caches the absence of a name for so many looks."""

    def __init__(self, name: str, looks: int) -> None:
        self.name, self.looks = name, looks

    def may_lag(self, path: Path) -> bool:
        return True

    def _missing(self, path: Path) -> bool:
        if self.name not in path.parts or self.looks <= 0:
            return False
        self.looks -= 1
        return True

    def stamp(self, path: Path) -> Stamp | None:
        return None if self._missing(path) else super().stamp(path)

    def stamps(self, directory: Path, files: Sequence[str]) -> Sequence[Stamp | None]:
        return [self.stamp(directory / file) for file in files]

    def read(self, path: Path) -> bytes:
        if self._missing(path):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return super().read(path)

    def scan(self, directory: Path) -> Mapping[str, int]:
        return {} if self._missing(directory) else super().scan(directory)


def saved(directory: Path, *steps: int, **options: Any) -> Path:
    job = Job(directory, 0, seed=1, keep_last_n=0, **options)
    for step in steps:
        job.save(step)
    return directory / "checkpoints"


def reader(directory: Path, storage: LocalStorage) -> CheckpointManager:
    manager = Job(directory, 0, seed=2).manager
    give(manager, storage=storage)
    return manager


@pytest.mark.parametrize("latest", ["link", "file"])
def test_what_another_machine_has_just_saved_is_loaded_and_nothing_is_left(
    tmp_path: Path, latest: str
) -> None:
    root = saved(tmp_path, 1, latest=latest)
    storage = Remembering(root)
    saved(tmp_path, 2, 3, latest=latest)
    manager = reader(tmp_path, storage)
    assert manager.load()[0] == 3
    assert manager.last_load is not None
    assert manager.last_load.passed_over == ()
    assert sorted(path.name for path in root.iterdir()) == ["latest", "step_1", "step_2", "step_3"]


def test_a_first_save_that_was_not_there_a_moment_ago_is_loaded(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    root.mkdir()
    storage = Remembering(root)
    saved(tmp_path, 1)
    assert reader(tmp_path, storage).load()[0] == 1


def test_nothing_is_made_where_nothing_is_remembered_or_changes_are_not_allowed(
    tmp_path: Path,
) -> None:
    root = saved(tmp_path, 1)
    local, foreign = Remembering(root), Remembering(root)
    local.may_lag = lambda path: False  # type: ignore[method-assign]
    foreign.may_change = lambda directory: False  # type: ignore[method-assign]
    for storage in (local, foreign):
        assert reader(tmp_path, storage).load()[0] == 1
        assert storage.changes == 0


def test_a_rollback_by_an_operator_stays_one(tmp_path: Path) -> None:
    root = saved(tmp_path, 1, 2, 3)
    storage = Remembering(root)
    (root / "latest").unlink()
    (root / "latest").symlink_to("step_2")
    assert reader(tmp_path, storage).load()[0] == 2


@pytest.mark.parametrize("has_latest", [True, False])
def test_a_name_that_is_listed_and_not_found_is_waited_for(
    tmp_path: Path, has_latest: bool
) -> None:
    root = saved(tmp_path, 1, 2)
    if not has_latest:
        (root / "latest").unlink()
    manager = reader(tmp_path, Forgetful("step_2", 5))
    assert manager.load()[0] == 2
    assert manager.last_load is not None
    assert manager.last_load.passed_over == ()


def test_one_that_is_listed_and_never_found_ends_the_load(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    with pytest.raises(UnreadableCheckpointError, match="step_2 is listed but cannot be found"):
        reader(tmp_path, Forgetful("step_2", 10_000)).load()


def test_a_file_of_the_newest_that_is_not_found_yet_is_waited_for(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    assert reader(tmp_path, Forgetful("manifest.json", 4)).load()[0] == 2
    assert reader(tmp_path, Forgetful("train_state.pt", 3)).load()[0] == 2


def test_what_is_really_gone_is_passed_over_after_the_wait(tmp_path: Path) -> None:
    root = saved(tmp_path, 1, 2)
    (root / "step_2" / "train_state.pt").unlink()
    assert reader(tmp_path, Forgetful("nothing", 0)).load()[0] == 1


@pytest.mark.parametrize("kind", ["missing", "short"])
def test_the_other_ranks_wait_for_what_rank_0_has_chosen(tmp_path: Path, kind: str) -> None:
    found = run_ranks(load_where_other_ranks_see_late, tmp_path, kind, 3, world=2)
    assert found == [(2, ()), (2, ())]


@pytest.mark.parametrize("kind", ["missing", "short"])
def test_a_rank_that_never_sees_it_has_it_passed_over_for_all(tmp_path: Path, kind: str) -> None:
    found = run_ranks(load_where_other_ranks_see_late, tmp_path, kind, 10_000, world=2)
    assert [step for step, _ in found] == [1, 1]
    assert "rank 1" in found[0][1][0]


def test_a_start_waits_for_what_the_one_before_told_the_store_and_takes_nothing_older(
    tmp_path: Path,
) -> None:
    (found,) = run_ranks(load_after_a_start_that_told_the_store, tmp_path, world=1)
    refusal = found.pop("next, 10000, True")
    assert refusal.startswith("UnreadableCheckpointError: ")
    assert "does not show step 2, which was published according to the job's store" in refusal
    assert found == {
        "same, 4, True": 1,  # as it would be without a store
        "same, 10000, True": 1,
        "same, 10000, False": 1,
        "next, 4, True": 2,
        "next, 10000, False": 1,  # on a disk of this machine it was deleted
    }


# Real ones.


def test_directories_of_this_machine_show_every_change_at_once(tmp_path: Path) -> None:
    assert not may_lag(tmp_path)
    assert not may_lag(tmp_path / "missing")


def bindfs(source: Path, target: Path) -> None:
    options = "attr_timeout=3,entry_timeout=3,negative_timeout=3"
    subprocess.run(["bindfs", "-o", options, source, target], check=True)


def sshfs(source: Path, target: Path) -> None:
    """One without a network: its protocol through pipes."""
    program = target.parent / "ssh"
    program.write_text(f"#!/bin/sh\nexec {SFTP_SERVER}\n")
    program.chmod(0o755)
    subprocess.run(["sshfs", "-o", f"ssh_command={program}", f"here:{source}", target], check=True)


@contextmanager
def second_view(mount: Callable[[Path, Path], None], directory: Path) -> Iterator[Path]:
    """Another view of ``directory``, which shares no cache with it."""
    view = directory.parent / f"{directory.name}-view"
    view.mkdir()
    mount(directory, view)
    try:
        yield view
    finally:
        subprocess.run(["fusermount", "-u", "-z", view], check=True)


def missing(mount: Callable[[Path, Path], None]) -> str | None:
    needs = ["fusermount", mount.__name__]
    lacking = [name for name in needs if shutil.which(name) is None]
    if mount is sshfs and not SFTP_SERVER.exists():
        lacking.append(str(SFTP_SERVER))
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK):
        lacking.append("root and /dev/fuse")
    return f"needs {', '.join(lacking)}" if lacking else None


@pytest.fixture(params=[bindfs, sshfs], ids=lambda mount: mount.__name__)
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A directory and another view of it."""
    reason = missing(request.param)
    if reason:
        pytest.skip(reason)
    directory = tmp_path / "run"
    directory.mkdir()
    with second_view(request.param, directory) as view:
        yield directory, view


def look(root: Path) -> list[bool]:
    """As a job does that polls for checkpoints."""
    os.listdir(root)
    (root / "latest").readlink()
    return [(root / f"step_{step}" / "manifest.json").exists() for step in (1, 2, 3)]


def test_another_mount_that_looked_a_moment_ago_resumes_from_the_newest(
    mounted: tuple[Path, Path],
) -> None:
    directory, view = mounted
    root = view / "checkpoints"
    saved(directory, 1)
    assert may_lag(root)
    assert look(root) == [True, False, False]
    saved(directory, 2, 3)
    manager = Job(view, 0, seed=2).manager
    assert manager.load()[0] == 3
    assert manager.last_load is not None
    assert manager.last_load.passed_over == ()
    assert resolve_resume_path(root) == root / "step_3"
    names = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert [name for name in names if name != ".lock"] == ["latest", "step_1", "step_2", "step_3"]


def test_repair_through_a_mount_that_looked_a_moment_ago_points_latest_at_nothing_older(
    mounted: tuple[Path, Path],
) -> None:
    directory, view = mounted
    root = view / "checkpoints"
    saved(directory, 1)
    look(root)
    saved(directory, 2, 3)
    plan = plan_repair(root, CautiousStorage(), deep=False)
    assert (plan.steps, plan.mended, plan.problems) == ((), True, ())


@pytest.mark.parametrize("latest", ["link", "file"])
def test_saves_through_another_mount_are_whole_there_and_here(
    mounted: tuple[Path, Path], latest: str
) -> None:
    directory, view = mounted
    for step in (1, 2, 2, 3):
        saved(view, step, latest=latest)
    assert Job(directory, 0, seed=2).load()[0] == 3
    assert Job(view, 0, seed=2).load()[0] == 3


def read_only_bindfs(source: Path, target: Path) -> None:
    subprocess.run(["bindfs", "-r", source, target], check=True)


@pytest.mark.skipif(missing(bindfs) is not None, reason=str(missing(bindfs)))
def test_a_read_only_mount_is_loaded_from_without_a_word_and_left_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "run"
    root = saved(directory, 1, 2)
    (root / ".trash-step_0-00c0ffee00c0ffee").mkdir()
    (root / ".latest-00c0ffee00c0ffee").symlink_to("step_1")
    before = sorted(path.name for path in root.iterdir())
    with second_view(read_only_bindfs, directory) as view:
        assert Job(view, 0, seed=2).load()[0] == 2
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []
    assert sorted(path.name for path in root.iterdir()) == before


# The bugs that the tests above exist for.


def test_a_look_that_is_not_fresh_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = saved(tmp_path, 1)
    storage = Remembering(root)
    saved(tmp_path, 2)
    monkeypatch.setattr(visibility, "_make_other_name", lambda *_: None)
    assert reader(tmp_path, storage).load()[0] == 1


def test_a_name_that_is_not_waited_for_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1, 2)
    monkeypatch.setattr(visibility, "PAUSES_S", ())
    monkeypatch.setattr(visibility, "_not_found", lambda *_: None)
    assert reader(tmp_path, Forgetful("step_2", 12)).load()[0] == 1
