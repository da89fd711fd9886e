"""Caches the plans of the previous save on all ranks, so that plans travel once.

Plans depend on names, shapes and placements, which rarely change between two saves. Each plan has
an id, chosen by its rank. In every save a rank reports the ids of its current plan and of the
assignment it holds; plans and assignments are sent only if the other side lacks them. Nothing here
is assumed to be up to date: ids are compared in every save, and a rank that missed an answer
reports an old id.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan

from kempnerforge.checkpoint.bulk.shards import (
    StagedShards,
    WrittenShards,
    encode_metadata,
    merge_plans,
    write_shards,
)
from kempnerforge.checkpoint.errors import CheckpointSaveError
from kempnerforge.checkpoint.runtime.process import draw_id
from kempnerforge.checkpoint.runtime.stale import again_if_stale
from kempnerforge.checkpoint.state.rank_values import (
    PlannedValues,
    missing_names,
    unequal_names,
    with_own_names,
)

__all__ = ["Assigned", "Merged", "PlanBook", "PlannedBulk", "Proposed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """A rank's plan, sent to rank 0."""

    plan_id: str
    planned: PlannedValues | None
    """None if rank 0 has it already."""
    holds: str | None
    """Id of the merger whose part this rank holds."""
    checksums: bytes = b""
    """Checksums of the values that other ranks may hold as well, eight bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A rank's part of the plan, sent by rank 0."""

    merger: str
    plan: SavePlan | None
    """None if the rank holds it already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The plans of all ranks, without duplicates."""

    merger: str
    plan_ids: tuple[str, ...]
    ranks_of: Mapping[int | None, tuple[int, ...]]
    """Ranks by the stage whose shard directory they share."""
    plans: Mapping[int, SavePlan]
    """The plan of each rank."""
    metadata: Mapping[int | None, Metadata]
    missing: Mapping[int | None, frozenset[str]]
    """By stage: moments that are missing on some rank that has the parameter."""
    differing: Mapping[int | None, frozenset[str]]
    """By stage: names of which each rank writes its own value, including the missing ones."""
    encoded: dict[int | None, tuple[tuple[bytes, ...], str, bytes]] = field(default_factory=dict)
    """By stage, from the previous save: where everything was written, save id, ``.metadata``."""

    @property
    def has_rank_values(self) -> bool:
        """Whether ranks write values of their own under one name."""
        return any(self.differing.values())

    def assign(self, rank: int, proposed: Proposed) -> Assigned:
        """Returns the answer to one rank."""
        plan = None if proposed.holds == self.merger else self.plans[rank]
        return Assigned(merger=self.merger, plan=plan)

    def encode(self, stage: int | None, written: Sequence[WrittenShards], *, save_id: str) -> bytes:
        """Returns the content of a stage's ``.metadata``.

        Args:
            stage: The stage.
            written: What the ranks of the stage wrote, in rank order.
            save_id: Id of this save.
        """
        places = tuple(shards.places for shards in written)
        before = self.encoded.get(stage)
        if before is not None and before[0] == places and before[2].count(before[1].encode()) == 1:
            # Only the save id differs, and its length is fixed, so the thousands of entries need
            # not be pickled again.
            data = before[2].replace(before[1].encode(), save_id.encode())
        else:
            plans = (self.plans[rank] for rank in self.ranks_of[stage])
            pairs = zip(plans, written, strict=True)
            data = encode_metadata(self.metadata[stage], pairs, save_id=save_id)
        self.encoded[stage] = (places, save_id, data)
        return data


class PlanBook:
    """The plans that one rank keeps between saves; for use by one thread at a time."""

    def __init__(self) -> None:
        self._shown: str | None = None
        self._holds: str | None = None
        self._part: SavePlan | None = None
        self._local: dict[int, tuple[str, PlannedValues]] = {}
        self._merged: Merged | None = None

    # On every rank.

    def propose(self, staged: StagedShards) -> Proposed:
        """Returns the message to rank 0."""
        planned = None if staged.plan_id == self._shown else staged.planned
        return Proposed(
            plan_id=staged.plan_id,
            planned=planned,
            holds=self._holds,
            checksums=staged.checksums(),
        )

    def accept(self, staged: StagedShards, assigned: Assigned) -> SavePlan:
        """Returns this rank's part of the plan."""
        self._shown = staged.plan_id
        if assigned.plan is not None:
            self._holds, self._part = assigned.merger, assigned.plan
        assert self._part is not None
        assert self._holds == assigned.merger
        return self._part

    # On rank 0.

    def merge(
        self, proposed: Sequence[Proposed], ranks_of: Mapping[int | None, tuple[int, ...]]
    ) -> Merged:
        """Distributes the values over the ranks.

        Args:
            proposed: The messages of all ranks, by rank.
            ranks_of: Ranks by the stage whose shard directory they share.
        """
        local = [self._planned_by(rank, proposal) for rank, proposal in enumerate(proposed)]
        plan_ids = tuple(proposal.plan_id for proposal in proposed)
        before = self._merged
        if before is not None and (before.plan_ids, before.ranks_of) != (plan_ids, ranks_of):
            before = None
        planned = {
            stage: {rank: local[rank] for rank in ranks} for stage, ranks in ranks_of.items()
        }
        missing = (
            {stage: missing_names(by_rank) for stage, by_rank in planned.items()}
            if before is None
            else before.missing
        )
        checksums = {rank: array("Q", one.checksums) for rank, one in enumerate(proposed)}
        differing = {
            stage: missing[stage] | unequal_names(by_rank, checksums)
            for stage, by_rank in planned.items()
        }
        if before is not None and before.differing == differing:
            return before
        plans: dict[int, SavePlan] = {}
        metadata: dict[int | None, Metadata] = {}
        for stage, by_rank in planned.items():
            own = with_own_names(by_rank, differing[stage])
            merged, metadata[stage] = merge_plans(list(own.values()))
            plans.update(zip(own, merged, strict=True))
        self._merged = Merged(
            merger=draw_id(),
            plan_ids=plan_ids,
            ranks_of=dict(ranks_of),
            plans=plans,
            metadata=metadata,
            missing=missing,
            differing=differing,
        )
        return self._merged

    def _planned_by(self, rank: int, proposal: Proposed) -> PlannedValues:
        if proposal.planned is not None:
            self._local[rank] = (proposal.plan_id, proposal.planned)
        plan_id, planned = self._local.get(rank, ("", PlannedValues(plan=SavePlan([]))))
        if plan_id != proposal.plan_id:
            raise CheckpointSaveError(f"rank {rank} refers to a plan that rank 0 does not have")
        return planned


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBulk:
    """:class:`~kempnerforge.checkpoint.protocol.bulk.Bulk` of shards, by plans that are cached."""

    plans: PlanBook
    """The same object in all saves of a rank; if all ranks use a new one, that only costs time."""
    shards: StagedShards

    def propose(self) -> Proposed:
        return self.plans.propose(self.shards)

    def merge(
        self, proposed: Sequence[Proposed], ranks_of: Mapping[int | None, tuple[int, ...]]
    ) -> Merged:
        return self.plans.merge(proposed, ranks_of)

    def write(
        self, directory: Path, assigned: Assigned, *, meanwhile: Callable[[], object]
    ) -> WrittenShards:
        plan = self.plans.accept(self.shards, assigned)
        write = partial(write_shards, directory, plan, self.shards, meanwhile=meanwhile)
        return again_if_stale(write, directory)
