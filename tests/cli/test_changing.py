"""`repair` and `retain` beside a running job, and with every kind of wrong `latest`."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.runtime import lock
from kempnerforge.checkpoint.runtime.file_systems import Mount
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.cli import __main__
from kempnerforge.cli.mending import plan_repair
from tests.checkpoint.test_lease import ELSEWHERE, Time, left_by
from tests.checkpoint.test_lock import end, hold
from tests.cli.checkpoints import SHARD, flip, save
from tests.cli.conftest import Cli


@pytest.mark.parametrize("command", [("repair",), ("retain", "--keep-last-n", 1)])
def test_nothing_is_changed_while_a_job_has_the_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    monkeypatch.setattr(__main__, "_PATIENCE_S", 0.0)
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "latest").unlink()
    job = hold(tmp_path)
    try:
        status, text = cli.text(*command, "--apply", tmp_path)
        assert status == 3
        assert (
            f"nothing was changed: {tmp_path} is in use by another job: process {job.pid}" in text
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == ["step_1", "step_2"]
        assert "would: " in cli.text(*command, tmp_path)[1]
    finally:
        end(job)
    status, text = cli.text(*command, "--apply", tmp_path)
    assert status == 0
    assert "done: " in text


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Time:
    """As on a file system whose locks reach nobody knows how far."""
    time = Time()
    monkeypatch.setattr(lock, "mount_of", lambda _: Mount(type="fuse.sshfs"))
    monkeypatch.setattr(lock, "time", time)
    monkeypatch.setattr(lock, "LeaseWatch", time.watch)
    return time


def test_a_lease_of_a_job_elsewhere_is_respected_until_the_job_is_dead(
    cli: Cli, tmp_path: Path, shared: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    (tmp_path / "latest").unlink()
    left_by(ELSEWHERE, tmp_path)
    with monkeypatch.context() as slow:
        slow.setattr(shared, "probe_s", 6.0)  # so that nobody can tell
        status, text = cli.text("repair", "--apply", tmp_path)
    assert status == 3
    assert "in use by another job: process 4711 on node17 since 2026-01-02T03:04:05" in text
    assert not (tmp_path / "latest").exists()
    status, text = cli.text("repair", "--apply", tmp_path)
    assert (status, sorted(path.name for path in tmp_path.iterdir())) == (
        *(0, [".lock", "latest", "step_1"]),
    )


def test_changes_end_where_a_job_takes_the_directory_over(
    cli: Cli, tmp_path: Path, shared: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    genuine = LocalStorage.sync_directory

    def taken_over(storage: LocalStorage, path: Path) -> None:
        genuine(storage, path)
        if not (tmp_path / ".lease-2").exists():
            left_by(ELSEWHERE, tmp_path, generation=2)

    monkeypatch.setattr(LocalStorage, "sync_directory", taken_over)
    status, text = cli.text("retain", "--keep-last-n", 1, "--apply", tmp_path)
    assert status == 2
    assert "stopped before the end: " in text
    assert "process 4711 on node17 since 2026-01-02T03:04:05+00:00 has taken it over" in text
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[0] == ".lease-2"
    assert names[2].startswith(".trash-step_1-")  # which lost its name before
    assert names[3:] == ["latest", "step_2", "step_3"]


def test_the_lock_is_taken_before_the_plan_is_made_and_let_go_of_at_the_end(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    others = []

    def plan(*args: object, **options: object) -> object:
        others.append(cli_of_another_process(tmp_path))
        return plan_repair(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("kempnerforge.cli.__main__.plan_repair", plan)
    assert cli.text("repair", "--apply", tmp_path)[0] == 0
    assert others == [3]
    assert cli_of_another_process(tmp_path) == 0


def cli_of_another_process(directory: Path) -> int:
    return subprocess.run(
        [sys.executable, "-m", "kempnerforge.cli", "repair", "--apply", str(directory)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    ).returncode


def absent(root: Path) -> None:
    (root / "latest").unlink()


def dangling(root: Path) -> None:
    shutil.rmtree(root / "step_4")


def circular(root: Path) -> None:
    absent(root)
    (root / "latest").symlink_to("latest")


def torn(root: Path) -> None:
    (root / "step_4" / layout.MANIFEST).unlink()


def short(root: Path) -> None:
    (root / "step_4" / SHARD).write_bytes(b"")


def flipped(root: Path) -> None:
    flip(root / "step_4" / SHARD)


def on_a_copy_of_another_step(root: Path) -> None:
    shutil.rmtree(root / "step_4")
    shutil.copytree(root / "step_2", root / "step_4")


@pytest.mark.parametrize(
    "damage",
    [absent, dangling, circular, torn, short, flipped, on_a_copy_of_another_step],
    ids=lambda damage: damage.__name__,
)
def test_repair_points_latest_at_the_newest_of_which_every_byte_verifies(
    cli: Cli, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for step in (3, 2, 1, 4):  # step 1 was committed after steps 2 and 3, and is damaged
        save(tmp_path, step)
    flip(tmp_path / "step_1" / SHARD)
    damage(tmp_path)
    best = "step_4" if damage in (absent, circular) else "step_2"
    status, text = cli.text("repair", tmp_path)
    assert status == 1
    assert f"would: point latest -> {best}" in text
    assert cli.text("repair", "--apply", tmp_path)[0] == 0
    assert (tmp_path / "latest").readlink() == Path(best)
    assert cli.text("verify", "--deep", tmp_path / "latest")[0] == 0
    assert cli.text("repair", tmp_path)[0] == 0


@pytest.fixture
def half_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Step 2 was saved again, and the run died when it had no directory `step_2`."""
    save(tmp_path, 1)
    save(tmp_path, 2)

    class Death(BaseException):
        pass

    def die(storage: LocalStorage, source: Path, target: Path) -> None:
        if target.name == "step_2":
            raise Death
        source.rename(target)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "exchange", lambda *names: False)
        patched.setattr(LocalStorage, "rename", die)
        with pytest.raises(Death):
            save(tmp_path, 2, content=b"other")
    return tmp_path


def test_a_replacement_that_is_half_way_is_shown_verified_and_completed(
    cli: Cli, half_replaced: Path
) -> None:
    hidden = (half_replaced / "latest").readlink().name
    assert hidden.startswith(".replaced-step_2-")
    status, listing = cli.json("ls", half_replaced)
    assert (status, listing["latest"]["target"], listing["latest"]["problem"]) == (0, hidden, None)
    assert "step 2 is being replaced" in listing["latest"]["note"]
    assert [row["name"] for row in listing["rows"] if row["latest"]] == [hidden]
    status, found = cli.json("verify", "--deep", half_replaced)
    assert status == 0
    assert [(one["name"], one["problems"]) for one in found["checkpoints"]] == [
        ("step_1", []),
        (hidden, []),
    ]
    status, plan = cli.json("repair", half_replaced)
    assert status == 1
    assert [(step["action"], step["target"]) for step in plan["steps"]] == [
        ("rename", "step_2"),
        ("point", "step_2"),
    ]
    assert cli.text("repair", "--apply", half_replaced)[0] == 0
    assert (half_replaced / "latest" / SHARD).read_bytes() == b"other"
    assert (half_replaced / "latest").readlink() == Path("step_2")


def test_a_replacement_whose_new_version_is_damaged_is_taken_back(
    cli: Cli, half_replaced: Path
) -> None:
    (new,) = half_replaced.glob(".staging-*")
    flip(new / SHARD)
    assert cli.text("repair", "--apply", half_replaced)[0] == 0
    assert (half_replaced / "latest" / SHARD).read_bytes() == b"shard"
    assert cli.text("verify", "--deep", half_replaced / "step_2")[0] == 0


def test_retain_keeps_the_step_that_is_being_replaced(cli: Cli, half_replaced: Path) -> None:
    hidden = (half_replaced / "latest").readlink()
    save(half_replaced, 2)
    save(half_replaced, 3)
    (half_replaced / "latest").unlink()
    (half_replaced / "latest").symlink_to(hidden)
    plan = cli.json("retain", "--keep-last-n", 1, half_replaced)[1]
    assert [step["name"] for step in plan["steps"]] == ["step_1"]
    assert plan["kept"] == ["step_2", "step_3"]
