"""What is verified on load, what is remembered of it, and what the caller learns."""

import os
from pathlib import Path
from typing import Any

import pytest

from kempnerforge.checkpoint import CorruptCheckpointError, LoadReport, VerifyPolicy
from kempnerforge.checkpoint.protocol import verification
from kempnerforge.checkpoint.runtime.storage import checksum_file
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.training import Job

SHARD = "__0_0.distcp"


def saved(directory: Path) -> Path:
    """A checkpoint of step 1 whose files were last changed long ago."""
    job = Job(directory, 0, seed=1)
    job.train(1)
    job.save(1)
    path = directory / "checkpoints" / "step_1"
    for file in path.rglob("*"):
        os.utime(file, (1e9, 1e9))
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that were read in full; all files count as settled."""
    found: list[str] = []

    def checksum(path: Path) -> object:
        found.append(path.name)
        return checksum_file(path)

    found_intact = verification.Verifier.found_intact

    def read_whole(self: verification.Verifier, name: str) -> None:
        found.append(name)
        found_intact(self, name)

    monkeypatch.setattr("kempnerforge.checkpoint.runtime.storage.checksum_file", checksum)
    monkeypatch.setattr(verification.Verifier, "found_intact", read_whole)
    monkeypatch.setattr(verification, "_SETTLED_S", -1e9)
    return found


def test_what_was_resolved_is_not_verified_again_when_it_is_loaded(
    tmp_path: Path, reads: list[str]
) -> None:
    path = saved(tmp_path)
    assert resolve_resume_path(tmp_path / "checkpoints") == path
    once = sorted(reads)
    assert SHARD in once
    assert Job(tmp_path, 0, seed=2).load(str(path))[0] == 1
    assert sorted(reads) == once


def test_a_file_that_changed_since_is_verified_again(tmp_path: Path, reads: list[str]) -> None:
    path = saved(tmp_path)
    resolve_resume_path(tmp_path / "checkpoints")
    data = bytearray((path / SHARD).read_bytes())
    data[-1] ^= 1
    (path / SHARD).write_bytes(data)
    with pytest.raises(CorruptCheckpointError):
        Job(tmp_path, 0, seed=2).load(str(path))


def test_a_load_reads_each_shard_once_and_in_full(tmp_path: Path, reads: list[str]) -> None:
    path = saved(tmp_path)
    assert Job(tmp_path, 0, seed=2).load(str(path))[0] == 1
    assert reads.count(SHARD) == 1
    assert Job(tmp_path, 0, seed=2, verify_on_load="sizes").load(str(path))[0] == 1
    assert reads.count(SHARD) == 1


def test_a_file_that_has_just_changed_is_not_remembered(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_SETTLED_S", 3600.0)
    saved(tmp_path)
    resolve_resume_path(tmp_path / "checkpoints")
    resolve_resume_path(tmp_path / "checkpoints")
    assert reads.count(SHARD) == 2  # the inode was changed just now, whatever its times say


@pytest.mark.parametrize(
    ("policy", "finds_flip", "finds_truncation"),
    [("full", True, True), ("sizes", False, True), ("off", False, False)],
)
def test_each_policy_finds_what_it_promises(
    tmp_path: Path, policy: str, finds_flip: bool, finds_truncation: bool
) -> None:
    path = saved(tmp_path)
    rank_file = path / "metadata.json"  # read for the freeze state only, so damage does not stop it
    rank_file.write_bytes(rank_file.read_bytes().replace(b"10", b"11"))
    job = Job(tmp_path, 0, seed=2, verify_on_load=policy)
    assert _loads(job, path) is not finds_flip
    rank_file.write_bytes(rank_file.read_bytes() + b" ")
    assert _loads(job, path) is not finds_truncation


def _loads(job: Job, path: Path) -> bool:
    try:
        return job.load(str(path))[0] == 1
    except CorruptCheckpointError:
        return False


def test_an_unknown_policy_is_refused_by_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found 'half'"):
        Job(tmp_path, 0, seed=1, verify_on_load="half")


def test_the_caller_learns_what_was_passed_over(tmp_path: Path) -> None:
    job = Job(tmp_path, 0, seed=1)
    before: Any = job.manager.last_load
    assert before is None
    job.save(1)
    job.save(2)
    root = tmp_path / "checkpoints"
    (root / "step_2" / "train_state.pt").unlink()
    job.load()
    report: Any = job.manager.last_load
    (reason,) = report.passed_over
    assert report == LoadReport(
        path=root / "step_1", step=1, passed_over=(reason,), verified=VerifyPolicy.full
    )
    assert reason.startswith("step_2: ")
    assert "train_state.pt" in reason
