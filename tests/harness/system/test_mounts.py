"""Mounts of one's own: nobody else sees them, and nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.run.disk import DiskImage
from harness.run.support import missing_disk
from harness.system.mounts import enter_mounts, own_mounts
from tests.harness.run.images import images_in_use

_PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def needs_an_image() -> None:
    reason = missing_disk("ext4")
    if reason is not None:
        pytest.skip(reason)


def mounted_here() -> str:
    return Path("/proc/thread-self/mounts").read_text()


def mount_in(folder: Path) -> DiskImage:
    (folder / "root").mkdir()
    disk = DiskImage("ext4", folder / "image", folder / "root")
    disk.format()
    disk.mount()
    return disk


def test_a_mount_is_seen_inside_and_nowhere_else(tmp_path: Path) -> None:
    before, here = mounted_here(), Path.cwd()
    with own_mounts():
        disk = mount_in(tmp_path)
        assert str(disk.root) in mounted_here()
        assert str(disk.root) not in Path(f"/proc/{os.getppid()}/mounts").read_text()
        disk.unmount()
    assert (mounted_here(), Path.cwd()) == (before, here)


def test_a_mount_is_not_seen_outside_where_mounts_are_shared_by_default(tmp_path: Path) -> None:
    """As on a machine that systemd has started."""
    with own_mounts():
        subprocess.run(["mount", "-n", "--make-rshared", "/"], check=True)
        with own_mounts():
            disk = mount_in(tmp_path)
            assert str(disk.root) in mounted_here()
        assert str(disk.root) not in mounted_here()


def test_another_process_that_enters_sees_the_same_and_stays_where_it_was(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            here = Path.cwd()
            enter_mounts(os.read(reading, 256).decode())
            os._exit(0 if (tmp_path / "root" / "seen").exists() and Path.cwd() == here else 1)
        finally:
            os._exit(2)  # a test must not go on in two processes
    with own_mounts() as place:
        disk = mount_in(tmp_path)
        (disk.root / "seen").touch()
        os.write(writing, place.encode())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        disk.unmount()


def test_a_process_that_is_killed_leaves_neither_mount_nor_loop_device(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with own_mounts():
                mount_in(tmp_path)
                os.write(writing, b"mounted")
                signal.pause()
        finally:
            os._exit(2)  # a test must not go on in two processes
    os.close(writing)
    assert os.read(reading, 16) == b"mounted"
    image = str(tmp_path / "image")
    assert image in images_in_use()

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    # The kernel lets go of a namespace in the background.
    deadline = time.monotonic() + _PATIENCE_S
    while image in images_in_use() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert image not in images_in_use()
    assert image not in mounted_here()
