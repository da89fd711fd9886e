"""Modes: members of a group that shares a checkpoint directory can continue each other's runs."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import nn
from torch.optim import SGD

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.mounts import passed_through

GROUP = 4711
NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="another user is one that root becomes")


@pytest.fixture
def root() -> Iterator[Path]:
    """The directory of a team, which other users may enter, unlike those of pytest."""
    place = Path(tempfile.mkdtemp())
    manager(place / "imports").save(1)  # what is imported late, while we may read it
    place.chmod(0o755)
    made = place / "team"
    made.mkdir()
    os.chown(made, 0, GROUP)
    made.chmod(0o2775)
    before = os.umask(0o022)
    yield made
    os.umask(before)
    shutil.rmtree(place)


@contextmanager
def colleague() -> Iterator[None]:
    groups = os.getgroups()
    os.setgroups([GROUP])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def manager(root: Path) -> CheckpointManager:
    model = nn.Linear(2, 2)
    config = CheckpointConfig(dir=str(root), keep_last_n=1)
    return CheckpointManager(config, model, SGD(model.parameters(), lr=0.1))


def modes(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): stat.filemode(path.stat().st_mode)
        for path in sorted(root.rglob("*"))
        if not path.is_symlink()
    }


def test_what_a_save_makes_in_a_directory_of_a_group_is_for_the_group(root: Path) -> None:
    manager(root).save(1)
    assert {path: mode for path, mode in modes(root).items() if path.count("/") == 0} == {
        "step_1": "drwxrwsr-x"
    }
    assert {mode for path, mode in modes(root).items() if path.count("/") == 1} == {
        "drwxrwsr-x",
        "-rw-rw-r--",
    }
    assert modes(root)["step_1/ranks/rank_00000.pt"] == "-rw-rw-r--"


def test_a_colleague_goes_on_and_deletes_what_retention_retires(root: Path) -> None:
    manager(root).save(1)
    with colleague():
        given = manager(root)
        assert given.load()[0] == 1
        given.save(2)
        given.save(3)
    assert sorted(path.name for path in root.iterdir()) == ["latest", "step_3"]


def test_a_colleague_goes_on_where_a_lock_file_and_a_lease_are_needed(root: Path) -> None:
    at = root.with_name("at")
    with passed_through("bindfs", root, at):
        manager(at).save(1)
        assert stat.filemode((root / ".lock").stat().st_mode) == "-rw-rw-r--"
        with colleague():
            manager(at).save(2)
        manager(at).save(3)
        assert (at / "latest").readlink() == Path("step_3")


@pytest.mark.parametrize("mode", [0o755, 0o2755, 0o700])
def test_a_directory_that_the_group_may_not_change_stays_one(root: Path, mode: int) -> None:
    root.chmod(mode)
    manager(root).save(1)
    assert not any("w" in found[4:7] for found in modes(root).values())


def test_nothing_is_given_to_a_group_that_the_directory_does_not_belong_to(root: Path) -> None:
    root.chmod(0o775)  # without setgid what is made belongs to the group of the process
    manager(root).save(1)
    assert not any("w" in found[4:7] for found in modes(root).values())


def test_a_default_acl_says_what_is_made_and_is_left_to(root: Path) -> None:
    if shutil.which("setfacl") is None:
        pytest.skip("setfacl is not installed")
    for entry in ("d:u::rwx,d:g::r-x,d:o::---", "d:g:4712:r-x"):
        done = subprocess.run(["setfacl", "-m", entry, root], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(done.stderr)
    LocalStorage().make_directory(root / "made")
    LocalStorage().write(root / "made" / "file", b"x")
    assert stat.S_IMODE((root / "made").stat().st_mode) == 0o2750
    assert stat.S_IMODE((root / "made" / "file").stat().st_mode) == 0o640


def test_a_directory_that_is_there_already_keeps_its_mode(root: Path) -> None:
    (root / "made").mkdir(mode=0o700)
    LocalStorage().make_directory(root / "made")
    assert stat.S_IMODE((root / "made").stat().st_mode) == 0o2700
