"""However a session ends, no process of it is left and nothing stays in shared memory."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from harness.run.fuse.mount import missing_fuse
from harness.run.launch import cluster
from harness.run.support import missing, missing_disk
from tests.harness.proving import ROOT
from tests.harness.run.images import images_in_use

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.timeout(1200),
]

_MARK = "KEMPNERFORGE_TEST_MARK"
_PATIENCE_S = 240.0
"""All of it takes seconds on idle cores, also where ranks boot cold and SLURM starts first."""
_SCENARIO = "scenarios/resume/epoch-boundary-with-workers.yaml"
_ON_HOSTS = "scenarios/two_hosts/taken-over-by-another-host.yaml"
_ON_A_DISK = "scenarios/power/twice.yaml"


def _marked(mark: str) -> list[int]:
    """The processes that were started, however indirectly, with this mark in their environment."""
    return _with_in_environment(f"{_MARK}={mark}")


def _with_in_environment(text: str) -> list[int]:
    """The living processes whose environment has this text in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if text.encode() in environment and state != "Z":
            found.append(int(process.name))
    return found


def _wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _images_in_use(folder: Path) -> list[str]:
    """The files below a folder that are behind a loop device, and so mounted somewhere."""
    return [image for image in images_in_use() if image.startswith(str(folder))]


def _end_in_the_middle(
    command: list[str],
    end: signal.Signals,
    is_in_full_swing: Callable[[str], bool],
) -> None:
    """Start a command, end it once a job is under way, and wait until no process is left."""
    mark = secrets.token_hex(8)
    session = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, _MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert _wait_until(lambda: is_in_full_swing(mark))
        session.send_signal(end)
        session.wait(_PATIENCE_S)
        assert _wait_until(lambda: not _marked(mark)), _marked(mark)
    finally:
        session.kill()
        session.wait()
        for pid in _marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _session(scenario: str, runs: Path) -> list[str]:
    return ["pytest", "-q", "-p", "no:cacheprovider", scenario, f"--run-root={runs}"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_no_process_outlives_a_session_that_is_ended_in_the_middle(
    end: signal.Signals, tmp_path: Path
) -> None:
    # Server, job launcher, two ranks and two loader workers each: the job is in full swing.
    command = _session(_SCENARIO, tmp_path / "runs")
    _end_in_the_middle(command, end, lambda mark: len(_marked(mark)) >= 8)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=str)
def test_no_process_outlives_a_pool_whose_command_is_ended_in_the_middle(
    end: signal.Signals,
) -> None:
    # The command, a tracker of resources, two workers, their servers, and the first job.
    command = ["harness", "explore", "scenarios/explore/killed-anywhere.yaml"]
    _end_in_the_middle(command, end, lambda mark: len(_marked(mark)) >= 8)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_nothing_stays_mounted_after_a_session_that_is_ended_in_the_middle(
    end: signal.Signals, tmp_path: Path
) -> None:
    reason = missing_disk("ext4")
    if reason is not None:
        pytest.skip(reason)
    runs = tmp_path / "runs"

    def is_in_full_swing(mark: str) -> bool:
        return bool(_images_in_use(runs)) and len(_marked(mark)) >= 4

    _end_in_the_middle(_session(_ON_A_DISK, runs), end, is_in_full_swing)

    assert _wait_until(lambda: not _images_in_use(runs)), _images_in_use(runs)
    assert str(runs) not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=str)
def test_no_mount_of_a_host_outlives_a_session_that_is_ended_in_the_middle(
    end: signal.Signals, tmp_path: Path
) -> None:
    if (reason := missing_fuse()) is not None:
        pytest.skip(reason)
    runs = tmp_path / "runs"

    def is_in_full_swing(mark: str) -> bool:
        found = _marked(mark)
        return sum(_serves_a_mount(pid) for pid in found) == 2 and len(found) >= 7

    _end_in_the_middle(_session(_ON_HOSTS, runs), end, is_in_full_swing)

    assert str(runs) not in Path("/proc/self/mounts").read_text()


def _serves_a_mount(process: int) -> bool:
    try:
        return b"harness.run.fuse" in Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


@pytest.mark.parametrize("name", ["torchrun", "slurm"])
def test_no_process_of_another_launcher_outlives_a_session_that_is_killed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "slurm" and (reason := cluster.missing()) is not None:
        pytest.skip(reason)

    def is_in_full_swing(mark: str) -> bool:
        return sum(_is_a_task_or_its_rank(pid) for pid in _marked(mark)) >= 4

    command = _session(f"scenarios/launchers/{name}.yaml", tmp_path / "runs")
    # SIGKILL leaves the folder of the cluster; its sockets need a shorter name than `tmp_path`.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        _end_in_the_middle(command, signal.SIGKILL, is_in_full_swing)
        # What SLURM starts for a step writes over the mark, and still knows its configuration.
        assert _wait_until(lambda: not _with_in_environment(folder)), _with_in_environment(folder)


def _is_a_task_or_its_rank(process: int) -> bool:
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"harness.boot.rank_shim" in command and b"srun" not in command[:1]


def test_a_launcher_leaves_nothing_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    command = _session("scenarios/launchers/torchrun.yaml", tmp_path / "runs")

    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, timeout=_PATIENCE_S)

    cache_of_torch = set(temporary.glob("torchinductor_*"))
    assert set(temporary.iterdir()) <= cache_of_torch
