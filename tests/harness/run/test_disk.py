"""Power cuts on real file systems: what is synced stays, what is not is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.run.disk import DiskImage
from harness.run.support import missing, missing_disk
from harness.system.mounts import MountError, own_mounts
from harness.words import FILE_SYSTEMS
from tests.harness.run.jobs import supervise


@contextmanager
def mounted(filesystem: str, folder: Path) -> Iterator[DiskImage]:
    """A fresh file system; skips where this machine cannot have one."""
    reason = missing_disk(filesystem)
    if reason is not None:
        pytest.skip(reason)
    root = folder / "mounted"
    root.mkdir()
    with own_mounts():
        disk = DiskImage(filesystem, folder / "image", root)
        disk.format()
        disk.mount()
        try:
            yield disk
        finally:
            disk.unmount()


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("filesystem", FILE_SYSTEMS)
def test_what_was_synced_stays_and_what_was_not_is_gone_when_the_power_goes(
    filesystem: str, tmp_path: Path
) -> None:
    with mounted(filesystem, tmp_path) as disk:
        assert names(disk.root) == []
        (disk.root / "synced").write_bytes(b"here")
        sync(disk.root / "synced")
        sync(disk.root)
        (disk.root / "not synced").write_bytes(b"gone")

        disk.cut("lost")
        disk.restart()

        assert names(disk.root) == ["synced"]
        assert (disk.root / "synced").read_bytes() == b"here"
        (disk.root / "later").touch()


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_journal_that_is_kept_has_the_names_and_not_the_data(
    filesystem: str, tmp_path: Path
) -> None:
    with mounted(filesystem, tmp_path) as disk:
        (disk.root / "new").write_bytes(b"gone")

        disk.cut("kept")
        disk.restart()

        assert (disk.root / "new").read_bytes() == b""


def test_ext4_does_not_save_a_rename_over_an_older_file_by_itself(tmp_path: Path) -> None:
    with mounted("ext4", tmp_path) as disk:
        (disk.root / "a").write_bytes(b"old")
        sync(disk.root / "a")
        (disk.root / "a.tmp").write_bytes(b"new")
        (disk.root / "a.tmp").rename(disk.root / "a")

        disk.cut("kept")
        disk.restart()

        assert (disk.root / "a").read_bytes() == b""


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_a_disk_without_power_takes_nothing_more(filesystem: str, tmp_path: Path) -> None:
    with mounted(filesystem, tmp_path) as disk:
        how = disk.cut("lost")

        assert how == "FS_IOC_SHUTDOWN 2; then the file system answered EIO"
        with pytest.raises(OSError, match="Input/output error"):
            (disk.root / "late").touch()


def test_what_happens_after_the_copy_of_a_btrfs_image_is_not_in_it(tmp_path: Path) -> None:
    with mounted("btrfs", tmp_path) as disk:
        disk.cut("lost")
        (disk.root / "late").touch()
        sync(disk.root)

        disk.restart()

        assert names(disk.root) == []


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_job_that_syncs_everything_leaves_the_disks_of_others_alone(tmp_path: Path) -> None:
    with mounted("ext4", tmp_path) as disk:
        (disk.root / "not synced").write_bytes(b"gone")

        trace, processes = supervise(lambda directory, rank: os.sync(), tmp_path / "job")  # noqa: TID251

        assert processes.exits == (0,)
        assert [(one.kind, one.error) for one in trace.operations] == [("sync", 0)]
        disk.cut("lost")
        disk.restart()
        assert names(disk.root) == []


def test_somebody_who_may_not_mount_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    missing_disk.cache_clear()
    try:
        assert missing_disk("xfs") == "a power cut on xfs needs root, to mount an image"
        assert missing_disk(None) is None
    finally:
        missing_disk.cache_clear()


def test_a_file_that_is_no_file_system_is_not_mounted(tmp_path: Path) -> None:
    if (reason := missing_disk("ext4")) is not None:
        pytest.skip(reason)
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    with own_mounts(), pytest.raises(MountError, match=r"^mount: [^\n]*wrong fs type[^\n]*$"):
        DiskImage("ext4", tmp_path / "image", tmp_path).mount()


def test_a_machine_that_lacks_the_tools_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda command, path: None)
    with pytest.raises(MountError, match=r"mkfs\.ext4 is not installed"):
        DiskImage("ext4", tmp_path / "image", tmp_path).format()
