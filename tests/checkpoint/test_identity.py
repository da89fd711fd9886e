"""If the checkpoint directory is not the same as before, nothing is done or created at its path."""

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.optim import SGD

from kempnerforge.checkpoint import (
    CheckpointError,
    CheckpointManager,
    DirectoryChangedError,
    StorageTimeoutError,
    UnreachableDirectoryError,
    UnreadableCheckpointError,
)
from kempnerforge.checkpoint.protocol.checkpoint_save import CheckpointSave
from kempnerforge.checkpoint.protocol.commit import Commit
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from tests.checkpoint import mounts
from tests.checkpoint.descriptors import links
from tests.checkpoint.ranks import run_ranks

LOCKING = """
import sys
from pathlib import Path
from kempnerforge.checkpoint.runtime.lock import acquire
acquire(Path(sys.argv[1]))
"""


def manager(directory: Path, *, stage: int | None = None, **options: Any) -> CheckpointManager:
    model = nn.Linear(2, 2)
    config = CheckpointConfig(dir=str(directory), **options)
    return CheckpointManager(config, model, SGD(model.parameters(), lr=0.1), pp_rank=stage)


def steps(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("step_"))


def is_locked(directory: Path) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", LOCKING, str(directory)], capture_output=True, text=True
    )
    assert done.returncode == 0 or "DirectoryInUseError" in done.stderr, done.stderr
    return done.returncode != 0


def move(root: Path) -> None:
    root.rename(root.with_name("moved"))


def move_and_make(root: Path) -> None:
    move(root)
    root.mkdir()


def delete(root: Path) -> None:
    shutil.rmtree(root)


def delete_and_make(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


def copy(root: Path) -> None:
    move(root)
    shutil.copytree(root.with_name("moved"), root, symlinks=True)


def put_a_file(root: Path) -> None:
    move(root)
    root.touch()


def point_nowhere(root: Path) -> None:
    move(root)
    root.symlink_to("nowhere")


def point_elsewhere(root: Path) -> None:
    move_and_make(root)
    other = root.with_name("other")
    root.rename(other)
    root.symlink_to(other)


CHANGES: dict[Callable[[Path], None], str] = {
    move: "is gone",
    move_and_make: "is another one, device .* inode",
    delete: "is gone",
    delete_and_make: "is another one, device .* inode",
    copy: "is another one, device .* inode",
    put_a_file: "Not a directory",
    point_nowhere: "is a link to nowhere, which leads nowhere",
    point_elsewhere: "is another one, device .* inode",
}


@contextmanager
def unchanged(place: Path) -> Iterator[None]:
    """Nothing comes or goes below ``place``."""
    before = sorted(place.rglob("*"))
    yield
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("change", CHANGES)
def test_a_directory_that_changed_is_refused_by_every_call_and_nothing_is_made(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    root = tmp_path / "run" / "c"
    given = manager(root)
    given.save(1)
    given.save(2)
    change(root)
    with unchanged(tmp_path):
        for call in (lambda: given.save(3), given.load, given.peek_saved_step):
            with pytest.raises(UnreachableDirectoryError, match=CHANGES[change]) as raised:
                call()
            assert raised.value.path == str(root)
            assert isinstance(raised.value, UnreadableCheckpointError)


@pytest.mark.parametrize("mode", [AsyncCheckpointMode.async_, AsyncCheckpointMode.async_pinned])
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_background_save_is_refused_too(tmp_path: Path, mode: AsyncCheckpointMode) -> None:
    root = tmp_path / "c"
    given = manager(root, async_mode=mode)
    given.save(1)
    given.wait()
    move(root)
    with unchanged(tmp_path):
        given.save(2)
        with pytest.raises(DirectoryChangedError, match="is gone; this run began with device"):
            given.wait()


def test_the_error_says_what_it_was_and_what_it_is(tmp_path: Path) -> None:
    root = tmp_path / "c"
    given = manager(root)
    given.save(1)
    was = root.stat()
    move_and_make(root)
    now = root.stat()
    with pytest.raises(DirectoryChangedError) as raised:
        given.save(2)
    for status in (was, now):
        numbers = f"device {os.major(status.st_dev)}:{os.minor(status.st_dev)}, inode"
        assert f"{numbers} {status.st_ino} on " in str(raised.value)
    assert "set follow_moved_dir" in str(raised.value)


def test_once_it_is_back_the_run_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "c"
    given = manager(root)
    given.save(1)
    move(root)
    with pytest.raises(DirectoryChangedError):
        given.save(2)
    root.with_name("moved").rename(root)
    given.save(3)
    assert given.load()[0] == 3
    assert steps(root) == ["step_1", "step_3"]


@pytest.mark.parametrize("begun_by", ["construction", "load", "save"])
def test_it_is_remembered_from_the_first_look_at_which_it_is_there(
    tmp_path: Path, begun_by: str
) -> None:
    root = tmp_path / "c"
    if begun_by == "construction":
        root.mkdir()
    given = manager(root)
    if begun_by == "load":
        root.mkdir()
        assert given.load() == (0, 0, {})
    if begun_by == "save":
        given.save(1)
    delete(root)
    with pytest.raises(DirectoryChangedError, match="is gone"):
        given.save(2)
    assert not root.exists()


def test_one_that_was_never_there_is_made_by_the_first_save(tmp_path: Path) -> None:
    given = manager(tmp_path / "a" / "c")
    assert given.load() == (0, 0, {})
    given.save(1)
    assert steps(tmp_path / "a" / "c") == ["step_1"]


def test_a_load_from_elsewhere_does_not_need_it(tmp_path: Path) -> None:
    other = manager(tmp_path / "other")
    other.save(7)
    given = manager(tmp_path / "c")
    given.save(1)
    move(tmp_path / "c")
    assert given.load(path=str(tmp_path / "other" / "step_7"))[0] == 7
    with pytest.raises(DirectoryChangedError):
        given.load(path=str(tmp_path / "c" / "step_1"))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("moment", ["staging", "writing", "publishing", "published"])
def test_a_directory_that_goes_within_a_save_has_no_checkpoint_put_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    root = tmp_path / "c"
    given = manager(root)
    given.save(1)
    owner, name = {
        "staging": (Commit, "open"),
        "writing": (CheckpointSave, "write"),
        "publishing": (Commit, "publish"),
        "published": (Commit, "publish"),
    }[moment]
    genuine = getattr(owner, name)

    def changed(self: Any, *arguments: Any) -> Any:
        if moment == "published":
            done = genuine(self, *arguments)
            move_and_make(root)
            return done
        move_and_make(root)
        return genuine(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, changed)
        with pytest.raises(CheckpointError, match=r"is another one|No such file") as raised:
            given.save(2)
    assert str(root) in str(raised.value)
    assert steps(root) == []
    moved = tmp_path / "moved"
    assert steps(moved) == (["step_1", "step_2"] if moment == "published" else ["step_1"])
    assert (moved / "latest").readlink() == Path("step_2" if moment == "published" else "step_1")


def test_a_directory_that_is_moved_is_followed_where_that_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = tmp_path / "c"
    (tmp_path / "one").mkdir()
    link.symlink_to("one")
    given = manager(link, follow_moved_dir=True, keep_last_n=2)
    given.save(1)
    given.save(2)
    shutil.copytree(tmp_path / "one", tmp_path / "other", symlinks=True)
    link.unlink()
    link.symlink_to("other")
    with unchanged(tmp_path / "one"), caplog.at_level(logging.WARNING):
        given.save(3)
        given.save(4)
    assert len([line for line in caplog.messages if "the run continues there" in line]) == 1
    assert steps(tmp_path / "other") == ["step_3", "step_4"]
    assert given.load()[0] == 4
    assert is_locked(tmp_path / "other")
    assert not is_locked(tmp_path / "one")


@pytest.mark.parametrize("change", [move_and_make, delete_and_make, point_elsewhere])
def test_a_directory_without_what_was_saved_last_is_never_followed(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    root = tmp_path / "c"
    given = manager(root, follow_moved_dir=True)
    given.save(1)
    change(root)
    with (
        unchanged(tmp_path),
        pytest.raises(DirectoryChangedError, match="it lacks the step_1 that this run"),
    ):
        given.save(2)


def test_a_directory_in_which_nothing_was_saved_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "c"
    root.mkdir()
    given = manager(root, follow_moved_dir=True)
    move_and_make(root)
    with unchanged(tmp_path), pytest.raises(DirectoryChangedError, match="nothing was saved or"):
        given.save(1)


def test_an_older_copy_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "c"
    given = manager(root, follow_moved_dir=True)
    given.save(1)
    shutil.copytree(root, tmp_path / "old", symlinks=True)
    given.save(1)  # another version of the same step
    move(root)
    (tmp_path / "old").rename(root)
    with unchanged(tmp_path), pytest.raises(DirectoryChangedError, match="it lacks the step_1"):
        given.save(2)


def test_what_was_loaded_tells_a_directory_as_what_was_saved_does(tmp_path: Path) -> None:
    root = tmp_path / "c"
    manager(root).save(1)
    given = manager(root, follow_moved_dir=True)
    assert given.load()[0] == 1
    copy(root)
    given.save(2)
    assert steps(root) == ["step_1", "step_2"]
    assert steps(tmp_path / "moved") == ["step_1"]


def test_a_directory_made_in_its_place_before_the_first_save_has_another_inode(
    tmp_path: Path,
) -> None:
    root = tmp_path / "c"
    root.mkdir()
    given = manager(root)
    delete_and_make(root)  # of the inode that has just become free, if nobody holds it
    with pytest.raises(DirectoryChangedError, match="is another one"):
        given.save(1)


def test_the_directory_is_held_while_its_manager_lives_and_no_longer(tmp_path: Path) -> None:
    root = tmp_path / "c"
    root.mkdir()
    given = manager(root)  # without the lock, which holds it too
    assert str(root) in links()
    child = os.fork()
    if child == 0:
        os._exit(str(root) in links())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    given.save(2)
    del given
    assert str(root) not in links()


def test_a_lazily_unmounted_directory_is_refused_and_the_mount_point_stays_empty(
    tmp_path: Path,
) -> None:
    root = tmp_path / "at" / "c"
    with mounts.memory(tmp_path / "at"):
        given = manager(root)
        given.save(1)
        subprocess.run(["umount", "-l", tmp_path / "at"], check=True)
        with unchanged(tmp_path), pytest.raises(DirectoryChangedError, match="is gone") as raised:
            given.save(2)
        assert f"on tmpfs none at {tmp_path / 'at'}" in str(raised.value)


def test_a_mount_point_that_is_the_directory_is_not_taken_for_it(tmp_path: Path) -> None:
    with mounts.memory(tmp_path / "at"):
        given = manager(tmp_path / "at")
        given.save(1)
        subprocess.run(["umount", "-l", tmp_path / "at"], check=True)
        with unchanged(tmp_path), pytest.raises(DirectoryChangedError, match="is another one"):
            given.save(2)


def test_another_file_system_mounted_in_its_place_is_refused(tmp_path: Path) -> None:
    with ExitStack() as mounted:
        mounted.enter_context(mounts.memory(tmp_path / "at"))
        given = manager(tmp_path / "at")  # of an inode that every such file system begins with
        given.save(1)
        mounted.enter_context(mounts.memory(tmp_path / "at"))
        with unchanged(tmp_path), pytest.raises(DirectoryChangedError, match="is another one"):
            given.save(2)


@pytest.mark.parametrize("program", ["bindfs", "mergerfs"])
def test_the_same_storage_mounted_anew_is_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, program: str
) -> None:
    real, at = tmp_path / "real", tmp_path / "at"
    with ExitStack() as mounted:
        mounted.enter_context(mounts.passed_through(program, real, at))
        given = manager(at / "c", keep_last_n=2)
        given.save(1)
        given.save(2)
        subprocess.run(["umount", "-l", at], check=True)
        with pytest.raises(DirectoryChangedError, match="is gone"):
            given.save(3)
        assert list(at.iterdir()) == []
        mounted.enter_context(mounts.passed_through(program, real, at))
        given.save(4)
        given.save(5)
        assert given.load()[0] == 5
    assert steps(real / "c") == ["step_4", "step_5"]
    assert len([line for line in caplog.messages if "the run continues there" in line]) == 1


def test_the_same_image_mounted_anew_is_gone_on_with_and_locked(tmp_path: Path) -> None:
    image, at = tmp_path / "image", tmp_path / "at"
    with ExitStack() as mounted:
        mounted.enter_context(mounts.image(image, at))
        given = manager(at / "c")
        given.save(1)
        device = (at / "c").stat().st_dev
        source = subprocess.run(
            ["findmnt", "-no", "SOURCE", at], check=True, capture_output=True, text=True
        ).stdout.strip()
        subprocess.run(["umount", "-l", at], check=True)
        # What holds the old mount goes on: the same device is mounted a second time.
        mounted.enter_context(mounts.mounted("mount", source, at=at))
        assert (at / "c").stat().st_dev == device
        given.save(2)
        assert is_locked(at / "c")
        assert steps(at / "c") == ["step_1", "step_2"]


def test_a_directory_of_a_lower_layer_keeps_its_identity_when_it_is_copied_up(
    tmp_path: Path,
) -> None:
    (tmp_path / "lower" / "c").mkdir(parents=True)
    with ExitStack() as mounted:
        upper = mounted.enter_context(mounts.memory(tmp_path / "upper"))
        at = mounted.enter_context(mounts.overlay(tmp_path / "lower", upper, tmp_path / "at"))
        given = manager(at / "c")
        for step in (1, 2, 3):
            given.save(step)
        assert given.load()[0] == 3


def test_a_directory_that_does_not_answer_costs_a_save_and_a_load_their_deadline_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = manager(tmp_path / "c", commit_timeout_s=2.0)
    given.save(1)
    answers = threading.Event()
    genuine = os.stat

    def stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if path == f"{tmp_path / 'c'}/.":
            answers.wait()
        return genuine(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat)
        for call in (lambda: given.save(2), given.load):
            began = time.monotonic()
            with pytest.raises(StorageTimeoutError, match="looking at the checkpoint directory"):
                call()
            assert time.monotonic() - began < 60.0
        answers.set()
    given.save(3)
    assert steps(tmp_path / "c") == ["step_1", "step_3"]


def save_where_one_rank_sees_another(rank: int, directory: Path) -> list[tuple[str, str]]:
    root = directory / f"c{rank}"
    given = manager(root, commit_timeout_s=60.0)
    said = []
    for step in (1, 2):
        try:
            given.save(step)
            said.append(("saved", ""))
        except CheckpointError as error:
            said.append((type(error).__name__, str(error)))
        if rank == 1:
            root.unlink()
            (directory / "elsewhere").mkdir(exist_ok=True)
            root.symlink_to("elsewhere")
    try:
        given.load()
    except CheckpointError as error:
        said.append((type(error).__name__, str(error)))
    return said


def test_a_directory_that_changed_for_one_rank_alone_is_an_error_of_all(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for rank in (0, 1):
        (tmp_path / f"c{rank}").symlink_to("real")
    one, other = run_ranks(save_where_one_rank_sees_another, tmp_path, world=2)
    assert [kind for kind, _ in one] == ["saved", "DirectoryChangedError", "DirectoryChangedError"]
    assert one == other
    for _, message in one[1:]:
        assert (
            f"rank 1: DirectoryChangedError: the checkpoint directory {tmp_path / 'c1'}" in message
        )
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["latest", "step_1"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
