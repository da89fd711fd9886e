"""Saves and loads of many ranks, in one process and on a virtual clock."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kempnerforge.checkpoint.archives.shard_metadata import decode_metadata
from kempnerforge.checkpoint.bulk.directory_save import DirectorySave
from kempnerforge.checkpoint.bulk.shards import WrittenShards, stage_shards
from kempnerforge.checkpoint.bulk.staging import LiveTensors
from kempnerforge.checkpoint.errors import PeerLostError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.bulk import WrittenFiles
from kempnerforge.checkpoint.protocol.candidates import ForeignShards
from kempnerforge.checkpoint.protocol.catalog import State, read_catalog
from kempnerforge.checkpoint.protocol.checkpoint_save import CheckpointSave, save_checkpoint
from kempnerforge.checkpoint.protocol.choosing import Search
from kempnerforge.checkpoint.protocol.loading import Load, Restored
from kempnerforge.checkpoint.protocol.proposal import LoadCandidate
from kempnerforge.checkpoint.protocol.reachable import require_reachable_by_all
from kempnerforge.checkpoint.protocol.register import Register
from kempnerforge.checkpoint.protocol.retention import RetentionPolicy
from kempnerforge.checkpoint.protocol.save_messages import Published, SaveRequest, StagedState
from kempnerforge.checkpoint.protocol.saving import save
from kempnerforge.checkpoint.protocol.steps import Steps
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.protocol.verification import verify_files
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint.memory_storage import Death, MemoryStorage
from tests.checkpoint.simulated import Outcome, Rank, carry_out_together

ROOT = Path("/runs/checkpoints")
WORLD = 64
DEADLINE_S = 60.0


class OneFileARank:
    """Bulk of one file; this rank's content of it says whose it is."""

    def __init__(self, rank: Rank[Any]) -> None:
        self._rank = rank

    def propose(self) -> int:
        return self._rank.rank

    def merge(
        self, proposed: Sequence[int], ranks_of: Mapping[int | None, tuple[int, ...]]
    ) -> Plan:
        return Plan(proposed, ranks_of)

    def write(
        self, directory: Path, assigned: int, *, meanwhile: Callable[[], object]
    ) -> WrittenFiles:
        name = f"__{assigned}_0.distcp"
        record = self._rank.runtime.storage.write(directory / name, f"of {assigned}".encode())
        meanwhile()
        return WrittenShards(files={name: record}, places=b"")


class Plan:
    """Every rank writes what it proposed."""

    has_rank_values = False

    def __init__(
        self, proposed: Sequence[int], ranks_of: Mapping[int | None, tuple[int, ...]]
    ) -> None:
        self._proposed, self.ranks_of = proposed, ranks_of

    def assign(self, rank: int, proposed: int) -> int:
        return self._proposed[rank]

    def encode(self, stage: int | None, written: Sequence[Any], *, save_id: str) -> bytes:
        return json.dumps([sorted(one.files) for one in written]).encode()


class NoForeignShards(ForeignShards):
    def require_complete(self, directory: Path, storage: Storage) -> None:
        raise AssertionError("every checkpoint here has a manifest")


class ReadsItsOwn:
    """Verifies a rank's share, and takes the file that it wrote."""

    def __init__(self, rank: Rank[Any]) -> None:
        self._rank = rank
        self.taken: bytes | None = None

    def opening(self) -> int:
        return self._rank.rank

    def prepare(self, candidate: LoadCandidate) -> bytes:
        choice = candidate.choice
        assert candidate.openings == tuple(range(self._rank.runtime.world_size))
        assert choice.manifest is not None
        verify_files(choice.path, choice.manifest, candidate.partition.items(), self._rank.runtime)
        return self._rank.runtime.storage.read(choice.path / f"__{self._rank.rank}_0.distcp")

    def restore(self, prepared: bytes) -> None:
        self.taken = prepared

    def not_taken(self, prepared: bytes) -> tuple[str, ...]:
        return ("of no rank", f"not of {self._rank.rank}")


class Job:
    """The ranks of one job, which save and load one after the other."""

    def __init__(self, storage: MemoryStorage | None = None, world: int = WORLD) -> None:
        self.disk = storage or MemoryStorage()
        self.ranks: list[Rank[Any]] = [Rank(rank, world, self.disk) for rank in range(world)]
        self.registers = [Register(rank.process) for rank in self.ranks]

    def save(self, step: int) -> list[Outcome[Published]]:
        saves = [
            save_checkpoint(self._save(rank, register, step), timeout_s=DEADLINE_S)
            for rank, register in zip(self.ranks, self.registers, strict=True)
        ]
        return carry_out_together(self.ranks, saves)

    def load(
        self,
        loader: type[ReadsItsOwn] = ReadsItsOwn,
        tidy: Callable[[], None] = lambda: None,
    ) -> list[Outcome[Restored[bytes] | None]]:
        loads = [self._load(rank, loader, tidy) for rank in self.ranks]
        return carry_out_together(self.ranks, loads)

    def look(self) -> list[Outcome[None]]:
        """As a manager does when it is made."""
        looks: list[Steps[None]] = [
            require_reachable_by_all(
                ROOT,
                lambda rank=rank: rank.runtime.storage.names(ROOT),  # type: ignore[misc]
                rank.runtime,
                timeout_s=DEADLINE_S,
            )
            for rank in self.ranks
        ]
        return carry_out_together(self.ranks, looks)

    def committed(self) -> list[str]:
        entries = read_catalog(ROOT, self.disk).entries
        return [entry.path.name for entry in entries if entry.state is State.committed]

    def names(self) -> tuple[str, ...]:
        return self.disk.names(ROOT)

    def _save(self, rank: Rank[Any], register: Register, step: int) -> CheckpointSave:
        return CheckpointSave(
            runtime=rank.runtime,
            root=ROOT,
            stage=None,
            request=SaveRequest(step=step, tokens_seen=step, metadata={}, parent=None),
            staged=StagedState(
                bulk=OneFileARank(rank), rank_file=lambda keys: b"rank", train_state=b"state"
            ),
            retention=RetentionPolicy(keep_last_n=2, is_milestone=lambda step: False),
            register=register,
            save_id=rank.process.new_save_id(),
        )

    def _load(
        self,
        rank: Rank[Any],
        loader: type[ReadsItsOwn] = ReadsItsOwn,
        tidy: Callable[[], None] = lambda: None,
    ) -> Steps[Restored[bytes] | None]:
        load = Load(
            search=Search(root=ROOT, shards=NoForeignShards()),
            runtime=rank.runtime,
            loader=loader(rank),
            tidy=tidy,
            timeout_s=DEADLINE_S,
        )
        return load.steps()


def errors_of(outcomes: Sequence[Outcome[Any]]) -> set[str]:
    return {f"{type(one.error).__name__}: {one.error}" for one in outcomes if one.error}


def hang_from(rank: Rank[Any], name: str) -> None:
    """From that operation on this rank's storage does not answer."""
    rank.storage.operation_s = lambda called, path: 1e9 if called == name else 0.001


def heal(rank: Rank[Any]) -> None:
    rank.storage.operation_s = lambda name, path: 0.001
    rank.storage.before = lambda name, path: None


def test_many_ranks_save_and_load_each_its_own() -> None:
    job = Job()
    assert errors_of(job.look()) == set()
    for step in (1, 2, 3):
        saved = job.save(step)
        assert errors_of(saved) == set()
        assert len({one.result for one in saved}) == 1
    assert job.names() == ("latest", "step_2", "step_3")
    loaded = Job(job.disk).load()
    assert errors_of(loaded) == set()
    for rank, one in enumerate(loaded):
        assert one.result is not None
        assert one.result.choice.path == ROOT / "step_3"
        assert one.result.prepared == f"of {rank}".encode()
        assert one.result.not_taken == ("of no rank",)


def test_nothing_is_loaded_where_nothing_was_saved() -> None:
    loaded = Job().load()
    assert errors_of(loaded) == set()
    assert {one.result for one in loaded} == {None}


@pytest.mark.parametrize("victim", [1, 40])
def test_a_rank_that_dies_while_it_writes_is_every_survivors_error_and_leaves_nothing(
    victim: int,
) -> None:
    job = Job()
    job.save(1)

    def die(name: str, path: Path) -> None:
        if name == "write":
            raise Death

    job.ranks[victim].storage.before = die
    saved = job.save(2)
    (error,) = errors_of(saved[:victim] + saved[victim + 1 :])
    assert error.startswith("PeerLostError: saving step 2")
    assert f"rank {victim}: PeerLostError: died, hung or lost its connection" in error
    assert isinstance(saved[victim].error, Death)
    assert job.names() == ("latest", "step_1")
    assert max(one.ended_s for one in saved) < 1.0  # a closed connection needs no deadline


def test_the_death_of_rank_0_at_any_operation_leaves_the_old_or_the_new_checkpoint() -> None:
    seen = set()
    for survives in range(200):
        job = Job(world=4)
        job.save(1)
        left = iter(range(survives, -1, -1))

        def die(name: str, path: Path, left: Any = left) -> None:
            if next(left, 0) == 0:
                raise Death

        job.ranks[0].storage.before = die
        saved = job.save(2)
        if saved[0].error is None:
            break
        assert isinstance(saved[0].error, Death)
        for one in saved[1:]:
            assert one.result is not None or isinstance(one.error, PeerLostError)
        (loaded,) = {one.result.choice.path.name for one in Job(job.disk, 4).load() if one.result}
        seen.add(loaded)
        assert loaded == "step_2" or all(one.error for one in saved)
    else:
        raise AssertionError("the save never came to its end")
    assert seen == {"step_1", "step_2"}


@pytest.mark.parametrize("victim", [1, 40])
def test_a_rank_whose_storage_hangs_says_so_itself_within_the_deadline(victim: int) -> None:
    job = Job()
    job.save(1)
    began = job.ranks[0].clock.now
    hang_from(job.ranks[victim], "write")
    saved = job.save(2)
    (error,) = errors_of(saved)
    assert error.startswith("StorageTimeoutError: saving step 2")
    assert f"rank {victim}: StorageTimeoutError: writing step 2" in error
    assert "did not finish within 18.0 s" in error
    assert all(18.0 < one.ended_s - began < DEADLINE_S for one in saved)
    assert job.names() == ("latest", "step_1")
    heal(job.ranks[victim])
    assert errors_of(job.save(3)) == set()
    assert job.committed() == ["step_1", "step_3"]


@pytest.mark.parametrize("vote", [1, 2])
def test_a_rank_that_is_stopped_costs_the_others_their_wait_for_its_vote(vote: int) -> None:
    job = Job()
    job.save(1)
    began = job.ranks[0].clock.now
    job.ranks[40].stops_at = vote
    saved = job.save(2)
    (error,) = errors_of(saved)
    assert "rank 40: PeerLostError: died, hung" in error
    ended = [one.ended_s - began for rank, one in enumerate(saved) if rank != 40]
    assert all(20.0 < seconds < DEADLINE_S for seconds in ended)
    assert job.names() == ("latest", "step_1")


@pytest.mark.parametrize("vote", [1, 2])
def test_a_rank_0_that_stops_is_given_up_by_the_others_before_the_deadline(vote: int) -> None:
    job = Job()
    job.save(1)
    began = job.ranks[0].clock.now
    job.ranks[0].stops_at = vote
    saved = job.save(2)
    assert all(isinstance(one.error, PeerLostError) for one in saved[1:])
    assert all(one.ended_s - began < DEADLINE_S for one in saved[1:])


def test_a_rank_0_whose_storage_hangs_says_so_before_the_others_give_it_up() -> None:
    job = Job()
    job.save(1)
    hang_from(job.ranks[0], "rename")
    began = job.ranks[0].clock.now
    saved = job.save(2)
    (error,) = errors_of(saved)
    assert "rank 0: StorageTimeoutError: publishing step 2" in error
    assert "whether the checkpoint exists is unknown" in error
    assert all(one.ended_s - began < DEADLINE_S for one in saved)
    assert not any(isinstance(one.error, PeerLostError) for one in saved)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("victim", [0, 40])
def test_a_failed_write_is_every_ranks_error_and_the_next_save_works(
    victim: int, code: int
) -> None:
    job = Job()
    job.save(1)

    def fail(name: str, path: Path) -> None:
        if name == "write" and path.name.endswith(".distcp"):
            raise OSError(code, os.strerror(code), str(path))

    job.ranks[victim].storage.before = fail
    (error,) = errors_of(job.save(2))
    assert error.startswith("CheckpointSaveError: saving step 2")
    assert f"rank {victim}: OSError" in error
    assert job.names() == ("latest", "step_1")
    heal(job.ranks[victim])
    assert errors_of(job.save(2)) == set()
    assert job.committed() == ["step_1", "step_2"]


def test_damage_that_one_rank_finds_makes_all_take_the_checkpoint_before() -> None:
    job = Job()
    job.save(1)
    job.save(2)
    job.disk.write(ROOT / "step_2" / "__40_0.distcp", b"of 41")
    loaded = Job(job.disk).load()
    assert errors_of(loaded) == set()
    for one in loaded:
        assert one.result is not None
        assert one.result.choice.path.name == "step_1"
        (passed_over,) = one.result.choice.passed_over
        assert passed_over.startswith("step_2: rank 40: CorruptCheckpointError")


def test_a_read_that_hangs_on_one_rank_passes_nothing_over() -> None:
    job = Job()
    job.save(1)
    job.save(2)
    later = Job(job.disk)
    hang_from(later.ranks[40], "checksum")
    loaded = later.load()
    (error,) = errors_of(loaded)
    assert error.startswith("StorageTimeoutError: loading")
    assert "rank 40: StorageTimeoutError: reading /runs/checkpoints/step_2" in error
    assert all(one.ended_s < DEADLINE_S for one in loaded)


def test_what_could_not_be_read_in_time_is_not_passed_over_for_another_ranks_damage() -> None:
    job = Job()
    job.save(1)
    job.save(2)
    job.disk.write(ROOT / "step_2" / "__7_0.distcp", b"of 8")
    later = Job(job.disk)
    hang_from(later.ranks[40], "checksum")
    (error,) = errors_of(later.load())
    assert "step_2 failed: rank 7: CorruptCheckpointError" in error
    assert "; rank 40: StorageTimeoutError: reading" in error


def test_slow_cleaning_after_a_load_fails_neither_it_nor_the_save_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = Job()
    job.save(1)
    later = Job(job.disk)
    root = later.ranks[0]

    def tidy() -> None:
        hang_from(root, "remove_tree")
        root.runtime.storage.remove_tree(ROOT / ".trash")

    loaded = later.load(tidy=tidy)
    assert errors_of(loaded) == set()
    assert loaded[0].ended_s < loaded[1].ended_s + 0.1 * DEADLINE_S + 1.0
    assert "leftovers in /runs/checkpoints are not removed: cleaning up in" in caplog.text
    heal(root)
    assert errors_of(later.save(2)) == set()
    assert later.committed() == ["step_1", "step_2"]


class Rank40HasNoPlace(ReadsItsOwn):
    def restore(self, prepared: bytes) -> None:
        if self._rank.rank == 40:
            raise ValueError("no place")


def test_a_rank_that_cannot_restore_keeps_all_from_the_load() -> None:
    job = Job()
    job.save(1)
    (error,) = errors_of(Job(job.disk).load(Rank40HasNoPlace))
    assert "restoring /runs/checkpoints/step_1 failed: rank 40: ValueError: no place" in error


def test_ranks_that_are_at_different_things_are_told_so() -> None:
    job = Job(world=4)
    job.save(1)
    protocols: list[Any] = [
        save_checkpoint(job._save(rank, register, 2), timeout_s=DEADLINE_S)
        for rank, register in zip(job.ranks, job.registers, strict=True)
    ]
    protocols[2].close()
    protocols[2] = job._load(job.ranks[2])
    (error,) = errors_of(carry_out_together(job.ranks, protocols))
    assert "rank 2: CheckpointError: it is in another operation than rank 0" in error


def test_a_directory_that_one_rank_cannot_look_into_is_every_ranks_error() -> None:
    job = Job()

    def refuse(name: str, path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    job.ranks[40].storage.before = refuse
    (error,) = errors_of(job.look())
    assert "rank 40: PermissionError" in error
    hang_from(job.ranks[7], "names")
    heal(job.ranks[40])
    (error,) = errors_of(job.look())
    assert "rank 7: StorageTimeoutError: looking into the checkpoint directory" in error


def directory_saves(ranks: Sequence[Rank[Any]], directory: Path) -> list[Outcome[Published]]:
    """As `AsyncCheckpointer` saves a value of each rank into one directory."""
    saves = [
        DirectorySave(
            runtime=rank.runtime,
            path=directory,
            shards=stage_shards(
                {f"of {rank.rank}": torch.arange(3.0)},
                stager=LiveTensors(),
                is_coordinator=rank.rank == 0,
                world_size=len(ranks),
            ),
            save_id=rank.process.new_save_id(),
        )
        for rank in ranks
    ]
    steps = [save(to, to.runtime, timeout_s=DEADLINE_S) for to in saves]
    return carry_out_together(ranks, steps)


def test_a_bare_directory_is_complete_or_has_no_metadata(tmp_path: Path) -> None:
    ranks: list[Rank[Any]] = [Rank(rank, 4, LocalStorage()) for rank in range(4)]
    assert errors_of(directory_saves(ranks, tmp_path / "whole")) == set()
    data = (tmp_path / "whole" / layout.SHARD_METADATA).read_bytes()
    found = decode_metadata(data, where="whole")
    assert sorted(found.state_dict_metadata) == ["of 0", "of 1", "of 2", "of 3"]
    hang_from(ranks[2], "make_durable_directory")
    (error,) = errors_of(directory_saves(ranks, tmp_path / "torn"))
    assert error.startswith("StorageTimeoutError: saving to")
    assert "failed: rank 2: StorageTimeoutError: saving to" in error
    assert not (tmp_path / "torn" / layout.SHARD_METADATA).exists()
    heal(ranks[2])
    assert errors_of(directory_saves(ranks, tmp_path / "torn")) == set()
    assert (tmp_path / "torn" / layout.SHARD_METADATA).exists()
