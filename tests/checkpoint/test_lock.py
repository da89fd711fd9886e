"""One job at a time writes to a directory, and a crash leaves nothing locked."""

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import CheckpointError, DirectoryInUseError
from kempnerforge.checkpoint.runtime import lock
from kempnerforge.checkpoint.runtime.lock import acquire
from tests.checkpoint.training import Job

ROOT = Path(__file__).parents[2]
HOLD = """
import os, sys, time
from pathlib import Path
from kempnerforge.checkpoint.runtime.lock import acquire
held = acquire(Path(sys.argv[1]))
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(60)
print(os.getpid(), flush=True)
time.sleep(60)
"""


def hold(directory: Path, how: str = "alone") -> subprocess.Popen[str]:
    """Another process that has the lock; ``fork``: and a child that outlives it."""
    directory.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), how],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert int(process.stdout.readline())
    return process


def end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_second_job_is_refused_and_told_who_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.0)
    job = Job(tmp_path, 0, seed=1)
    job.save(1)
    staging = tmp_path / "checkpoints" / ".staging-step_2-00c0ffee00c0ffee"
    del job
    other = hold(tmp_path / "checkpoints")
    staging.mkdir()
    try:
        job = Job(tmp_path, 0, seed=2)
        assert job.load()[0] == 1
        assert staging.exists()  # it may be the other job's save under way
        with pytest.raises(DirectoryInUseError) as caught:
            job.save(2)
    finally:
        end(other)
    expected = f"in use by another job: process {other.pid} on {socket.gethostname()} since 20"
    assert expected in str(caught.value)
    job.save(2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "latest",
        "step_1",
        "step_2",
    ]


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    other = hold(tmp_path, "fork")
    try:
        with pytest.raises(DirectoryInUseError):
            acquire(tmp_path)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert acquire(tmp_path, patience_s=60.0).root == tmp_path
        os.killpg(other.pid, 0)  # the child lives
    finally:
        end(other)


def _exit_status(target: Any, *args: Any) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*")
def test_a_forked_child_that_ends_does_not_release_the_lock_of_its_parent(tmp_path: Path) -> None:
    held = acquire(tmp_path)
    assert _exit_status(os.getpid) == 0
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    del held
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_managers_of_one_process_share_the_lock_and_the_last_one_releases_it(
    tmp_path: Path,
) -> None:
    one, other = acquire(tmp_path), acquire(tmp_path)
    assert one is other
    del one
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    del other
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def flock_refuses(monkeypatch: pytest.MonkeyPatch, code: int, *, directories_only: bool) -> None:
    genuine = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if not directories_only or Path(f"/proc/self/fd/{fd}").is_dir():
            raise OSError(code, os.strerror(code))
        genuine(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_hidden_file_is_locked_where_directories_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock_refuses(monkeypatch, errno.EBADF, directories_only=True)
    held = acquire(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [lock.LOCK_FILE]
    with pytest.raises(BlockingIOError):
        lock.DirectoryLock(tmp_path)
    del held


def test_a_lease_does_it_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=lock.__name__)
    flock_refuses(monkeypatch, errno.ENOSYS, directories_only=False)
    root = tmp_path / "checkpoints"
    job = Job(tmp_path, 0, seed=1)
    job.save(1)
    assert sorted(path.name for path in root.iterdir()) == [
        *(".lease-1", ".lock", "latest", "step_1")
    ]
    assert caplog.text.count("a lease does, .lease-1, renewed every 5 s") == 1
    other = hold_through_a_lease(root)
    assert "DirectoryInUseError" in other
    assert f"process {os.getpid()} on {socket.gethostname()} since 20" in other
    assert job.load()[0] == 1
    job.save(2)
    del job
    assert not (root / ".lease-1").exists()


def hold_through_a_lease(root: Path) -> str:
    """What another process is told that asks for the directory where nothing can be locked."""
    code = f"""
import fcntl
from pathlib import Path
from kempnerforge.checkpoint.runtime.lock import acquire
def flock(fd, operation):
    raise OSError({errno.ENOSYS}, "Function not implemented")
fcntl.flock = flock
acquire(Path({str(root)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stderr


def test_the_refusal_is_a_save_error() -> None:
    assert issubclass(DirectoryInUseError, CheckpointError)
