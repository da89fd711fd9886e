"""What a save cannot change: other users' leftovers, lower layers of an overlay, full disks."""

import errno
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import CheckpointError
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint import mounts
from tests.checkpoint.test_identity import manager, steps
from tests.checkpoint.test_sharing import colleague, root

__all__ = ["root"]  # a fixture

TRASH = ".trash-step_1-0123456789abcdef"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is one that root becomes")
def test_trash_that_another_user_left_is_told_of_once_and_not_by_each_save(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / TRASH).mkdir()
    (root / TRASH / "file").touch()
    (root / TRASH).chmod(0o2755)  # as an earlier version left it under the usual umask
    with colleague(), caplog.at_level(logging.WARNING):
        given = manager(root)
        given.load()
        for step in (1, 2, 3):
            given.save(step)
    assert [line for line in caplog.messages if TRASH in line] == [
        f"left to the next save: {root / TRASH} cannot be removed: "
        f"[Errno 13] Permission denied: 'file'"
    ]
    assert steps(root) == ["step_1", "step_2", "step_3"]


@pytest.mark.parametrize("failing", ["step_1-", "pp0", "ranks"])
def test_a_staging_directory_of_which_a_folder_cannot_be_made_goes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    genuine = LocalStorage.make_directory

    def make_directory(self: LocalStorage, path: Path) -> None:
        if failing in path.name:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))
        genuine(self, path)

    given = manager(tmp_path / "c", stage=0)
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "make_directory", make_directory)
        with pytest.raises(CheckpointError, match="Disk quota exceeded") as raised:
            given.save(1)
    assert failing in str(raised.value)
    assert list((tmp_path / "c").iterdir()) == []
    given.save(1)
    assert steps(tmp_path / "c") == ["step_1"]


@pytest.fixture
def layered(tmp_path: Path) -> Any:
    """A checkpoint directory of which step 1 and 2 come from a lower layer."""
    given = manager(tmp_path / "lower" / "c")
    given.save(1)
    given.save(2)
    del given
    with ExitStack() as mounted:
        upper = mounted.enter_context(mounts.memory(tmp_path / "upper"))
        at = mounts.overlay(tmp_path / "lower", upper, tmp_path / "at", "redirect_dir=off")
        yield mounted.enter_context(at) / "c"


def test_what_a_lower_layer_holds_is_kept_and_told_of_once(
    layered: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = manager(layered, keep_last_n=1)
    assert given.load()[0] == 2
    for step in (3, 4, 5):
        given.save(step)
    assert steps(layered) == ["step_1", "step_2", "step_5"]
    said = [line for line in caplog.messages if "cannot be retired" in line]
    assert len(said) == 2
    for line, name in zip(said, ("step_1", "step_2"), strict=True):
        assert f"{layered / name}" in line
        assert "Invalid cross-device link: it cannot be renamed even within its directory" in line
        assert "mount with redirect_dir=on" in line


def test_a_step_of_a_lower_layer_that_would_be_replaced_is_refused_and_stays_whole(
    layered: Path,
) -> None:
    given = manager(layered)
    assert given.load()[0] == 2
    for _ in range(2):
        with pytest.raises(CheckpointError, match="mount with redirect_dir=on"):
            given.save(2)
        assert sorted(path.name for path in layered.iterdir()) == ["latest", "step_1", "step_2"]
        assert manager(layered).load()[0] == 2
    given.save(3)
    assert given.load()[0] == 3


def test_with_redirected_directories_a_lower_layer_is_like_any_other(
    tmp_path: Path,
) -> None:
    given = manager(tmp_path / "lower" / "c")
    given.save(1)
    given.save(2)
    with ExitStack() as mounted:
        upper = mounted.enter_context(mounts.memory(tmp_path / "upper"))
        layers = mounts.overlay(tmp_path / "lower", upper, tmp_path / "at", "redirect_dir=on")
        root = mounted.enter_context(layers) / "c"
        given = manager(root, keep_last_n=1)
        assert given.load()[0] == 2
        given.save(2)
        given.save(3)
        assert steps(root) == ["step_3"]
