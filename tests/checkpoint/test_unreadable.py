"""Reasons why a load cannot read: damage leads to another checkpoint, a lack of memory does not,
and a directory that the load does not need may hang."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from kempnerforge.checkpoint.archives.shard_metadata import decode_metadata
from kempnerforge.checkpoint.bulk.reading import read_shards
from kempnerforge.checkpoint.errors import CorruptCheckpointError, UnreadableCheckpointError
from kempnerforge.checkpoint.state.model_state import LiveModel, assemble
from tests.checkpoint.effects import give
from tests.checkpoint.storages import Gates
from tests.checkpoint.training import Job

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

LONG_S = 60.0

LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from kempnerforge.checkpoint.errors import CorruptCheckpointError
from kempnerforge.checkpoint.bulk.reading import read_shards
from kempnerforge.checkpoint.archives.shard_metadata import decode_metadata

directory = Path(sys.argv[1])
metadata = decode_metadata((directory / ".metadata").read_bytes(), where=".metadata")
targets = {"small": torch.zeros(3), "x": torch.zeros(64 << 20, dtype=torch.uint8)}
read_shards(directory, metadata, {"small": targets["small"]}, live=targets)  # all is imported
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (16 << 20),) * 2)
try:
    read_shards(directory, metadata, targets, live=targets)
except CorruptCheckpointError as error:
    print("damage:", error)
except (MemoryError, RuntimeError):
    print("want of memory")
"""


def _job(directory: Path, **options: Any) -> Job:
    return Job(directory, 0, seed=1, **options)


def test_want_of_memory_while_dcp_reads_is_no_damage(tmp_path: Path) -> None:
    values = {"small": torch.ones(3), "x": torch.ones(64 << 20, dtype=torch.uint8)}
    save(values, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    command = [sys.executable, "-W", "ignore", "-c", LITTLE_MEMORY, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.stdout == "want of memory\n", told.stderr


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), OSError(errno.EIO, "")]
)
def test_what_says_nothing_of_a_file_stays_what_it_is(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save({"x": torch.ones(3)}, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    metadata = decode_metadata((tmp_path / ".metadata").read_bytes(), where=".metadata")

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(FileSystemReader, "read_data", fail)
    raised = error
    with pytest.raises(type(error)):
        read_shards(tmp_path, metadata, {"x": torch.zeros(3)}, live={"x"})
    raised = RuntimeError("PytorchStreamReader failed")
    with pytest.raises(CorruptCheckpointError, match="PytorchStreamReader failed"):
        read_shards(tmp_path, metadata, {"x": torch.zeros(3)}, live={"x"})


def test_metadata_of_another_program_that_cannot_be_read_ends_the_load(
    tmp_path: Path,
) -> None:
    job = _job(tmp_path)
    job.save(1)
    plain = tmp_path / "checkpoints" / "step_2"
    state = assemble(LiveModel(job.model), job.optimizer).shared
    save(state, checkpoint_id=str(plain), no_dist=True)
    torch.save({"step": 2, "tokens_seen": 20}, plain / "train_state.pt")
    (plain / "metadata.json").write_text('{"step": 2, "tokens_seen": 20}')
    latest = tmp_path / "checkpoints" / "latest"
    latest.unlink()
    latest.symlink_to("step_2")

    def fail(path: Path) -> None:
        if path == plain / ".metadata":
            raise OSError(errno.EIO, "Input/output error", str(path))

    broken = _job(tmp_path)
    give(broken.manager, storage=Gates("checkpoint load", read=fail))
    with pytest.raises(UnreadableCheckpointError, match="Input/output error"):
        broken.load()
    assert _job(tmp_path).load()[0] == 2


def test_a_checkpoint_elsewhere_loads_while_the_jobs_own_directory_hangs(tmp_path: Path) -> None:
    _job(tmp_path / "elsewhere").save(3)
    job = _job(tmp_path / "own", commit_timeout_s=30.0)  # over long before the directory answers
    own, wake = tmp_path / "own", threading.Event()

    def hang(path: Path, *_: object) -> None:
        if own in path.parents:
            wake.wait(LONG_S)

    operations = ("names", "read", "size", "is_directory", "read_link", "resolve", "remove_tree")
    give(job.manager, storage=Gates("checkpoint load", None, **dict.fromkeys(operations, hang)))
    try:
        assert job.load(str(tmp_path / "elsewhere" / "checkpoints" / "step_3"))[0] == 3
    finally:
        wake.set()
