"""What the checkpoint directory lies on: power is cut where it can be, and what is left is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.disk.tree import FileSystem
from harness.evidence.write import list_entries
from harness.run.backing import Folder, stand
from harness.run.support import missing_disk
from harness.run.trace import Trace
from harness.run.written import Written
from harness.system.errors import HarnessError
from tests.harness.proving import plan_of

PLAN = plan_of("power/after-a-save.yaml::ext4")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A run directory; skips where no power can be cut."""
    reason = missing_disk("ext4")
    if reason is not None:
        pytest.skip(reason)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run0").mkdir()
    return tmp_path


def _trace(directory: Path) -> Trace:
    return Trace(places=[[]], written=Written(directory.with_name("written.bin")))


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_what_a_cut_left_is_the_last_operation_of_the_run(directory: Path) -> None:
    root, trace = directory / "checkpoints", _trace(directory)
    trace.written.add(b"bytes of the run")
    with stand(PLAN, directory) as backing:
        (root / "synced").write_bytes(b"here")
        sync(root / "synced")
        (root / "not synced").write_bytes(b"gone")

        backing.cut("lost")
        backing.cut("lost")
        backing.end_run(trace, directory / "run0")
        backing.end_run(trace, directory / "run0")

        (cut,) = trace.operations
        files = FileSystem()
        files.apply(cut, trace.written)
        assert (cut.kind, cut.rank) == ("cut", -1)
        assert list(files.snapshot()) == ["synced"]
        assert files.snapshot() == list_entries(root)
        (root / "in the next run").touch()

    assert sorted(list_entries(root)) == ["in the next run", "synced"]
    assert '"not synced"' in (directory / "run0" / "cut.json").read_text()
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoints", "run0"]


def test_nothing_is_told_of_a_run_whose_power_stayed(directory: Path) -> None:
    trace = _trace(directory)
    with stand(PLAN, directory) as backing:
        backing.end_run(trace, directory / "run0")
    assert trace.operations == []
    assert list((directory / "run0").iterdir()) == []


def test_the_image_is_gone_when_something_goes_wrong_on_it(directory: Path) -> None:
    with pytest.raises(ZeroDivisionError), stand(PLAN, directory):
        raise ZeroDivisionError
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoints", "run0"]
    assert str(directory) not in Path("/proc/thread-self/mounts").read_text()


def test_a_power_cut_on_a_plain_directory_is_an_error_of_the_harness() -> None:
    with pytest.raises(HarnessError, match="the directory is not on a disk image"):
        Folder().cut("lost")
