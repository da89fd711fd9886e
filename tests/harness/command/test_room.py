"""Small directories are in shared memory, large ones on the disk, and only as many as fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.run.command import room
from harness.run.command.command import CommandError
from harness.run.command.room import Room, rooms

GB = 10**9


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Room:
    """16 GB of memory and as much shared memory, and 100 GB of disk."""
    monkeypatch.setattr(room, "available_bytes", lambda: 16 * GB)
    free = {tmp_path / "disk": 100 * GB, tmp_path / "memory": 16 * GB}

    class Usage:
        def __init__(self, place: Path) -> None:
            self.free = free[place]

    monkeypatch.setattr("shutil.disk_usage", Usage)
    return Room(disk=tmp_path / "disk", memory=tmp_path / "memory")


def test_what_would_fill_the_memory_is_on_the_disk(machine: Room) -> None:
    assert machine.place(GB // 2, at_once=3) == machine.memory
    assert machine.place(5 * GB, at_once=3) == machine.disk
    assert Room(disk=machine.disk).place(1, at_once=3) == machine.disk


def test_as_many_starts_are_made_at_once_as_fit(machine: Room) -> None:
    def at_once(size: int, memory: int) -> int:
        return machine.at_once(machine.disk, size=size, memory=memory, wanted=3)

    assert at_once(GB, GB) == 3
    assert at_once(GB, 3 * GB) == 2
    assert at_once(GB, 100 * GB) == 1
    assert at_once(15 * GB, GB) == 2
    with pytest.raises(CommandError, match="set TMPDIR to a folder on a larger disk"):
        at_once(40 * GB, GB)


def test_a_test_in_shared_memory_has_a_folder_on_the_disk_as_long_as_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_MEMORY", tmp_path / "memory")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "disk"))
    folder = tmp_path / "memory" / "session" / "try"
    folder.mkdir(parents=True)
    with rooms(folder) as both:
        assert (both.memory, both.disk.parent) == (folder, tmp_path / "disk" / "session")
        (both.disk / "large").touch()
    assert list((tmp_path / "disk").iterdir()) == []
    with rooms(tmp_path / "elsewhere") as one:
        assert one == Room(disk=tmp_path / "elsewhere")
