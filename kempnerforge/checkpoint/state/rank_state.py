"""State that differs by rank, and what becomes of it when the ranks are arranged differently.

Every rank writes a file of its own (``ranks/rank_00003.pt``): its generators and the position of
its dataloader. A file a rank, and not one gathered file, because a loader's position can be large
and nothing of it concerns another rank. ``train_state.pt`` holds rank 0's copy as well, for
programs that know that file only.

On load a rank looks for the rank that it continues:

- same number of ranks in the same stages: itself, bit for bit;
- otherwise, if stages have as many ranks as before and the same device mesh: the rank at its place
  in its stage (in stage 0 if there is no such stage any more). Dataloader and generators follow it;
- otherwise: no rank. Generators stay as they were seeded. Which samples a dataloader's position
  stands for depends on the number of ranks, so only a loader that says how it goes on from the
  positions of all saved ranks (:class:`RedistributableDataLoader`) gets them; for any other a saved
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
    """A dataloader that can go on where a job with another data-parallel degree stopped."""

    def load_state_dicts(self, states: Sequence[Any]) -> None:
        """Go on from the positions of all ranks that saved.

        Called by ``CheckpointManager.load`` instead of ``load_state_dict``, and only where the
        degree or the mesh has changed, on every rank with the same states.

        Args:
            states: What ``state_dict()`` returned on each rank of the first pipeline stage, in
                their order; tensor-parallel peers among them say the same.
        """


@dataclass(frozen=True, slots=True)
class Positions:
    """In place of a rank's own dataloader position: those of all ranks of the first stage."""

    of_ranks: tuple[Any, ...]


def hand_over(position: Any, dataloader: Any) -> bool:
    """Give a position to a loader that has a way to take it; whether it has one."""
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
    """The part of a train state that belongs to this rank alone."""
    return {key: state[key] for key in RANK_KEYS if key in state}


def without_rank_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """The rest of a train state."""
    return {key: value for key, value in state.items() if key not in RANK_KEYS}


def predecessor(rank: int, now: Arrangement, then: Arrangement) -> int | None:
    """The saved rank that ``rank`` continues, or None."""
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
    """Refuse a dataloader position that no rank of the new arrangement continues.

    Raises:
        RedistributionError: ``saved`` has a position and ``wanted`` asks for it.
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
