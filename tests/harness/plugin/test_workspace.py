"""The folder of a session: passed runs go, failed ones stay, abandoned sessions are cleared."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import workspace as module
from harness.workspace import Workspace, open_workspace, slug


def new_run(workspace: Workspace) -> Path:
    directory = workspace.new_run("async-kill")
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints" / "latest").symlink_to("step_2")
    return directory


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sessions work when the user chose no place."""
    monkeypatch.setattr(module, "choose_base", lambda: tmp_path)
    return tmp_path


def test_a_failed_run_moves_beside_the_failure_file_and_replaces_the_last(base: Path) -> None:
    workspace = open_workspace(failures=base / "failures")
    first, second = new_run(workspace), new_run(workspace)
    assert first != second
    (first / "old").touch()
    assert workspace.keep(first, "kill") == base / "failures" / "kill"
    assert workspace.keep(second, "kill") == base / "failures" / "kill"
    kept = base / "failures" / "kill"
    assert not (kept / "old").exists()
    assert (kept / "checkpoints" / "latest").readlink() == Path("step_2")
    workspace.close()
    assert [path.name for path in base.iterdir()] == ["failures"]


def test_runs_of_one_name_that_come_at_once_leave_one_whole_run(base: Path) -> None:
    workspace = open_workspace(failures=base / "failures")
    runs = [new_run(workspace) for _ in range(12)]
    with ThreadPoolExecutor(max_workers=6) as workers:
        kept = set(workers.map(lambda run: workspace.keep(run, "kill"), runs))
    assert kept == {base / "failures" / "kill"}
    assert [path.name for path in (base / "failures").iterdir()] == ["kill"]
    assert (base / "failures" / "kill" / "checkpoints" / "latest").is_symlink()


def test_a_failed_run_stays_where_the_user_wants_runs(tmp_path: Path) -> None:
    workspace = open_workspace(failures=tmp_path / "failures", chosen=tmp_path / "runs")
    directory = new_run(workspace)
    assert workspace.keep(directory, "kill") == directory
    workspace.shared.mkdir()
    workspace.close()
    assert directory.exists()
    assert not workspace.shared.exists()


def test_what_was_never_made_is_not_moved(base: Path) -> None:
    workspace = open_workspace(failures=base / "failures")
    directory = workspace.new_run("async-kill")
    assert workspace.keep(directory, "kill") == directory
    assert not (base / "failures").exists()


def test_sessions_that_were_killed_are_cleared_after_an_hour(base: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    dead, living = int(child.stdout), os.getpid()
    user = str(os.getuid())
    names = {
        "stale": f"kempnerforge-harness-{user}-{dead}-aaaa",
        "running": f"kempnerforge-harness-{user}-{living}-bbbb",
        "fresh": f"kempnerforge-harness-{user}-{dead}-cccc",
        "kept": f"kempnerforge-harness-{user}-{dead}-dddd",
    }
    for role, name in names.items():
        (base / name / ("run" if role == "kept" else "shared")).mkdir(parents=True)
        if role != "fresh":
            os.utime(base / name, (0, 0))
    open_workspace(failures=base / "failures")
    assert sorted(path.name for path in base.iterdir()) == sorted(
        names[role] for role in ("running", "fresh", "kept")
    )


def test_a_name_becomes_a_short_file_name() -> None:
    assert slug("Async: flush (pp2 x fsdp2)!") == "async-flush-pp2-x-fsdp2"
    assert slug("?") == "scenario"
    assert len(slug("x" * 300)) == 60


def test_runs_that_are_too_large_for_memory_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "disk"))
    failures = tmp_path / "failures"
    workspace = Workspace(root=tmp_path / "memory" / "session", failures=failures)
    with workspace.on_disk() as other:
        large = other.new_run("large")
        assert (large.parent, other.failures) == (tmp_path / "disk" / "session", failures)
        large.mkdir()
        other.drop(large)
    assert list((tmp_path / "disk").iterdir()) == []
    with Workspace(root=tmp_path / "disk" / "session", failures=failures).on_disk() as same:
        assert same.root == tmp_path / "disk" / "session"
