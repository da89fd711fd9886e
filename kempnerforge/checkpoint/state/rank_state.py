"""State that differs by rank, and the rules for restoring it in another layout of ranks.

Every rank writes a file of its own (``ranks/rank_00003.pt``): its generators and the position of
its dataloader. There is one file per rank, not one gathered file, because a loader's position can
be large and concerns no other rank. ``train_state.pt`` also holds rank 0's copy, for programs that
know only that file.

On load, each rank determines the saved rank that it continues:

- Same number of ranks in the same stages: itself, bit for bit.
- Otherwise, if each stage has as many ranks as before and the same device mesh: the rank at the
  same place in its stage (in stage 0 if that stage no longer exists). Dataloader and generators
  are restored from it.
- Otherwise: no rank. Generators stay as they were seeded. Which samples a dataloader's position
  covers depends on the number of ranks. So only a loader that can continue from the positions of
  all saved ranks (:class:`RedistributableDataLoader`) gets them; for any other loader, a saved
  position is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from kempnerforge.checkpoint.errors import RedistributionError
from kempnerforge.checkpoint.format.arrangement import Arrangement

__all__ = [
    "Positions",
    "RedistributableDataLoader",
    "hand_over",
    "predecessor",
    "rank_part",
    "require_redistributable",
    "without_rank_part",
]

RANK_KEYS = ("rng", "dataloader")


@runtime_checkable
class RedistributableDataLoader(Protocol):
    """A dataloader that can continue where a job with another data-parallel degree stopped."""

    def load_state_dicts(self, states: Sequence[Any]) -> None:
        """Continues from the positions of all ranks that saved.

        ``CheckpointManager.load`` calls this instead of ``load_state_dict``, but only if the
        data-parallel degree or the mesh has changed, on every rank with the same states.

        Args:
            states: The results of ``state_dict()`` on each rank of the first pipeline stage, in
                rank order; tensor-parallel peers among them have the same.
        """


@dataclass(frozen=True, slots=True)
class Positions:
    """The dataloader positions of all ranks of the first stage, in place of a rank's own."""

    of_ranks: tuple[Any, ...]


def hand_over(position: Any, dataloader: Any) -> bool:
    """Restores a loader's position, if it has a method for that; returns whether it has."""
    if isinstance(position, Positions):
        if not isinstance(dataloader, RedistributableDataLoader):
            return False
        dataloader.load_state_dicts(position.of_ranks)
        return True
    if not hasattr(dataloader, "load_state_dict"):
        return False
    dataloader.load_state_dict(position)
    return True


def rank_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a train state that belongs to this rank alone."""
    return {key: state[key] for key in RANK_KEYS if key in state}


def without_rank_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a train state that all ranks share."""
    return {key: value for key, value in state.items() if key not in RANK_KEYS}


def predecessor(rank: int, now: Arrangement, then: Arrangement) -> int | None:
    """Returns the saved rank that ``rank`` continues, or None."""
    if now.stage_of_rank == then.stage_of_rank and list(now.meshes) == list(then.meshes):
        return rank
    mine = now.ranks_of(now.stage_of_rank[rank])
    theirs = then.ranks_of(now.stage_of_rank[rank]) or then.ranks_of(0)
    if len(mine) != len(theirs) or list(now.meshes) != list(then.meshes):
        return None
    return theirs[mine.index(rank)]


def require_redistributable(
    saved: Mapping[str, Any], now: Arrangement, then: Arrangement, *, wanted: Sequence[str]
) -> None:
    """Refuses a dataloader position that no rank of the new arrangement continues.

    Raises:
        RedistributionError: ``saved`` has a position, and ``wanted`` includes it.
    """
    if "dataloader" in saved and "dataloader" in wanted:
        raise RedistributionError(
            f"the checkpoint has dataloader positions of {len(then.stage_of_rank)} ranks (meshes "
            f"{list(then.meshes)}), this job has {len(now.stage_of_rank)} (meshes "
            f"{list(now.meshes)}) and this dataloader cannot redistribute positions; resume with "
            "the same data-parallel degree, give the loader a method load_state_dicts (see "
            "RedistributableDataLoader), or pass exclude_keys=['dataloader'] and place the data "
            "yourself"
        )
