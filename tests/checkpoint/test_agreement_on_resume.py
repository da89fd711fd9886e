"""`resolve_resume_path` and `load` choose the same checkpoint on every rank, whatever is damaged.

This includes a rank that sees an older state of the directory than the others, as with the cache of
a network file system.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from kempnerforge.checkpoint import CheckpointError
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from kempnerforge.resilience.elastic import resolve_resume_path
from tests.checkpoint.ranks import run_ranks
from tests.checkpoint.training import Job

SHARD = "__1_0.distcp"


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def point_latest(root: Path, target: str) -> None:
    (root / "latest").unlink()
    (root / "latest").symlink_to(target)


def copy_another_step(root: Path) -> None:
    shutil.rmtree(root / "step_3")
    shutil.copytree(root / "step_2", root / "step_3")


def roll_back_to_a_damaged_one(root: Path) -> None:
    point_latest(root, "step_1")
    flip(root / "step_1" / SHARD)


def damage_two(root: Path) -> None:
    flip(root / "step_3" / SHARD)
    (root / "step_2" / "train_state.pt").unlink()


def damage_all(root: Path) -> None:
    for step in (1, 2, 3):
        flip(root / f"step_{step}" / SHARD)


# Steps 1, 2 and 3 were saved, and `latest` names 3; beside the damage, the step that is left.
DAMAGE: dict[str, tuple[Callable[[Path], object], int | None]] = {
    "nothing": (lambda root: None, 3),
    "flipped shard": (lambda root: flip(root / "step_3" / SHARD), 2),
    "flipped rank": (lambda root: flip(root / "step_3" / "ranks" / "rank_00001.pt"), 2),
    "short shard": (lambda root: (root / "step_3" / SHARD).write_bytes(b""), 2),
    "shard gone": (lambda root: (root / "step_3" / SHARD).unlink(), 2),
    "manifest gone": (lambda root: (root / "step_3" / "manifest.json").unlink(), 2),
    "directory gone": (lambda root: shutil.rmtree(root / "step_3"), 2),
    "another step's content": (copy_another_step, 2),
    "latest gone": (lambda root: (root / "latest").unlink(), 3),
    "latest in a circle": (lambda root: point_latest(root, "latest"), 3),
    "rolled back": (lambda root: point_latest(root, "step_1"), 1),
    "rolled back to a damaged one": (roll_back_to_a_damaged_one, 3),
    "two damaged": (damage_two, 1),
    "all damaged": (damage_all, None),
}


def choose_both_ways(job: Job, root: Path) -> Any:
    """The steps that the two ways lead to, or the errors that they end in."""
    ways: tuple[Callable[[], int], ...] = (
        lambda: job.load(str(resolve_resume_path(root)))[0],
        lambda: job.load()[0],
    )
    found: list[int | str] = []
    for load in ways:
        try:
            found.append(load())
        except CheckpointError as error:
            found.append(type(error).__name__)
    return found


def choose_under_damage(rank: int, directory: Path) -> Any:
    job = Job(directory, rank, seed=1, sharded=True, keep_last_n=0)
    for step in (1, 2, 3):
        job.train(1)
        job.save(step)
    found = {}
    for number, (kind, (damage, _)) in enumerate(DAMAGE.items()):
        home = directory / str(number)
        if rank == 0:
            shutil.copytree(directory / "checkpoints", home / "checkpoints", symlinks=True)
            damage(home / "checkpoints")
        dist.barrier()
        again = Job(home, rank, seed=9, sharded=True, keep_last_n=0)
        found[kind] = choose_both_ways(again, home / "checkpoints")
    return found


def test_both_ways_lead_every_rank_to_the_same_checkpoint_under_any_damage(tmp_path: Path) -> None:
    expected = {kind: [step or "NoUsableCheckpointError"] * 2 for kind, (_, step) in DAMAGE.items()}
    assert run_ranks(choose_under_damage, tmp_path, world=2) == [expected] * 2


def stale_view(root: Path) -> None:
    """This rank does not see `step_3` yet, and `latest` as it was before it."""
    names, read_link = LocalStorage.names, LocalStorage.read_link
    resolve = LocalStorage.resolve

    def old_names(self: LocalStorage, directory: Path) -> tuple[str, ...]:
        found = names(self, directory)
        return tuple(name for name in found if directory != root or name != "step_3")

    def old_link(self: LocalStorage, path: Path) -> str | None:
        return "step_2" if path == root / "latest" else read_link(self, path)

    def old_resolve(self: LocalStorage, path: Path) -> Path | None:
        return root / "step_2" if path == root / "latest" else resolve(self, path)

    LocalStorage.names = old_names  # type: ignore[method-assign]
    LocalStorage.read_link = old_link  # type: ignore[method-assign]
    LocalStorage.resolve = old_resolve  # type: ignore[method-assign]


def choose_with_a_stale_view(rank: int, directory: Path, stale: int, unreadable: bool) -> Any:
    job = Job(directory, rank, seed=1, sharded=True, keep_last_n=0)
    for step in (1, 2, 3):
        job.train(1)
        job.save(step)
    dist.barrier()
    root = directory / "checkpoints"
    if rank == stale:
        stale_view(root)
        if unreadable:
            forbid_reading(root / "step_3")
    return choose_both_ways(Job(directory, rank, seed=9, sharded=True, keep_last_n=0), root)


def forbid_reading(folder: Path) -> None:
    """This rank does not find the files of a directory either."""
    checksum = LocalStorage.checksum

    def old_checksum(self: LocalStorage, path: Path) -> Any:
        if folder in path.parents:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return checksum(self, path)

    LocalStorage.checksum = old_checksum  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("stale", "unreadable", "step"),
    [(1, False, 3), (0, False, 2), (1, True, 2)],
    ids=["another-rank", "rank-0", "another-rank-which-cannot-read-it"],
)
def test_a_rank_with_an_old_view_of_the_directory_changes_nothing_for_itself_alone(
    tmp_path: Path, stale: int, unreadable: bool, step: int
) -> None:
    """Rank 0's view decides, and every rank must be able to read what it chooses."""
    found = run_ranks(choose_with_a_stale_view, tmp_path, stale, unreadable, world=2)
    assert found == [[step, step]] * 2
