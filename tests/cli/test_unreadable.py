"""A file that cannot be read is not damage: each command reports it with a status of its own, and
changes nothing because of it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kempnerforge.checkpoint.format import manifest
from tests.checkpoint.failing_reads import Failing, contents, failing_paths
from tests.checkpoint.newer import make_newer
from tests.cli.checkpoints import SHARD, flip, save
from tests.cli.conftest import Cli

NOBODY = 65534
UNKNOWN = 4
REPOSITORY = Path(__file__).parents[2]

ABOUT_ONE = (("show",), ("verify",), ("verify", "--deep"))
ABOUT_ALL = (("ls",), ("verify",), ("verify", "--deep"))
CHANGING = (
    ("repair",),
    ("repair", "--quick"),
    ("repair", "--apply"),
    ("retain", "--keep-last-n", "1"),
    ("retain", "--keep-last-n", "1", "--deep"),
    ("retain", "--keep-last-n", "1", "--deep", "--apply"),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for step in (1, 2, 3):
        save(tmp_path, step)
    return tmp_path


def unreadable(path: Path, code: int = errno.EACCES) -> Failing:
    return Failing(code, float("inf"), lambda read: read == str(path))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENOMEM, errno.ESTALE])
@pytest.mark.parametrize("command", [*ABOUT_ALL, *CHANGING], ids=" ".join)
def test_a_manifest_that_cannot_be_read_is_said_and_nothing_is_changed(
    cli: Cli, root: Path, command: tuple[str, ...], code: int
) -> None:
    before = contents(root)
    with failing_paths(unreadable(root / "step_3" / "manifest.json", code)):
        status, text = cli.text(*command, root)
    assert status == UNKNOWN
    assert f"step_3/manifest.json cannot be read at present: {os.strerror(code)}" in text
    assert "BROKEN" not in text
    assert "would: " not in text
    assert contents(root) == before


@pytest.mark.parametrize("command", ABOUT_ONE, ids=" ".join)
@pytest.mark.parametrize("name", ["manifest.json", SHARD, "metadata.json"])
def test_a_file_that_cannot_be_read_is_said_of_its_checkpoint(
    cli: Cli, root: Path, command: tuple[str, ...], name: str
) -> None:
    path = root / "step_3" / name
    with failing_paths(unreadable(path)):
        status, text = cli.text(*command, root / "step_3")
    assert status == UNKNOWN
    assert "not read: " in text
    assert name in text
    assert "Permission denied" in text
    assert "missing" not in text


@pytest.mark.parametrize("command", [c for c in CHANGING if "--quick" not in c], ids=" ".join)
def test_a_shard_that_cannot_be_read_keeps_repair_and_retain_from_changing_anything(
    cli: Cli, root: Path, command: tuple[str, ...]
) -> None:
    before = contents(root)
    deep = Failing(errno.EIO, float("inf"), lambda read: read.endswith(f"step_3/{SHARD}"))
    with failing_paths(deep):
        status, text = cli.text(*command, root)
    assert (status, "Input/output error" in text) == (UNKNOWN, True)
    assert contents(root) == before


@pytest.mark.parametrize("command", ["repair", "retain"])
def test_latest_is_pointed_back_and_old_ones_go_once_all_can_be_read(
    cli: Cli, root: Path, command: str
) -> None:
    flip(root / "step_3" / SHARD)
    more = ("--keep-last-n", 1) if command == "retain" else ()
    status, text = cli.text(command, *more, "--apply", root)
    assert status == 0
    assert "not read" not in text
    assert os.readlink(root / "latest") == ("step_2" if command == "repair" else "step_3")


def test_repair_does_not_point_latest_past_one_that_cannot_be_read(cli: Cli, root: Path) -> None:
    (root / "latest").unlink()
    with failing_paths(unreadable(root / "step_3" / "manifest.json")):
        status, found = cli.json("repair", "--apply", root)
    assert (status, found["steps"], found["mended"]) == (UNKNOWN, [], False)
    assert found["unreadable"][0].startswith("step_3: ")
    assert not (root / "latest").exists()
    status, found = cli.json("repair", "--apply", root)
    assert (status, [step["target"] for step in found["steps"]]) == (0, ["step_3"])


def test_what_differs_and_what_could_not_be_read_are_told_apart(cli: Cli, root: Path) -> None:
    shutil.copytree(root / "step_3", root / "copy")
    one, copy = root / "step_3", root / "copy"
    assert cli.text("diff", one, copy)[0] == 0
    for name in (".metadata", "metadata.json"):
        with failing_paths(unreadable(copy / name)):
            status, found = cli.json("diff", one, copy)
        assert (status, len(found["unreadable"])) == (UNKNOWN, 1)
        assert (found["problems"], found["metadata"], found["tensors_removed"]) == ([], {}, [])
    (copy / "manifest.json").unlink()
    with failing_paths(unreadable(copy / SHARD)):
        status, text = cli.text("diff", root / "step_2", copy)
    assert status == 1  # the metadata differs
    assert f"{SHARD}: Permission denied" in text
    assert f"file only in A: {SHARD}" not in text


def test_damage_says_more_than_what_could_not_be_read(cli: Cli, root: Path) -> None:
    (root / "step_2" / "manifest.json").write_bytes(b"")
    with failing_paths(unreadable(root / "step_3" / "manifest.json")):
        status, text = cli.text("ls", root)
    assert status == 1
    assert "step_2: " in text
    assert "step_3: not read: " in text


@pytest.mark.parametrize("command", [*ABOUT_ALL, ("repair", "--apply"), ("repair",)], ids=" ".join)
def test_a_newer_format_is_named_and_left_alone(
    cli: Cli, root: Path, command: tuple[str, ...]
) -> None:
    make_newer(root / "step_3")
    before = contents(root)
    status, text = cli.text(*command, root)
    assert status == UNKNOWN
    newest = manifest.READABLE_FORMATS[-1]
    assert f"newer version of this package, format {newest + 1}; this version" in text
    assert f"reads up to {newest}" in text
    assert contents(root) == before


def test_retain_neither_counts_nor_deletes_a_newer_format(cli: Cli, root: Path) -> None:
    make_newer(root / "step_2")
    status, text = cli.text("retain", "--keep-last-n", 1, "--apply", root)
    assert status == 0
    assert "left alone: step_2" in text
    assert sorted(path.name for path in root.iterdir()) == ["latest", "step_2", "step_3"]


@pytest.fixture
def shut() -> Iterator[Path]:
    """Three checkpoints of nobody's, the newest of which nobody may not enter."""
    if os.geteuid() != 0:
        pytest.skip("root may be anybody else")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "checkpoints"
        for step in (1, 2, 3):
            save(root, step)
        for path in (Path(name), root, *root.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.chown(root / "step_3", 0, 0)
        (root / "step_3").chmod(0o700)
        yield root


@pytest.mark.parametrize("command", [*ABOUT_ALL, ("repair", "--apply"), CHANGING[-1]], ids=" ".join)
def test_a_user_who_may_not_read_the_newest_step_is_told_so(
    shut: Path, command: tuple[str, ...]
) -> None:
    before = contents(shut)
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    told = subprocess.run(
        [*become, sys.executable, "-m", "kempnerforge.cli", *command, str(shut)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert told.returncode == UNKNOWN, told.stderr
    assert "Permission denied" in told.stdout
    assert contents(shut) == before
