"""Determines which runs follow the reference, and which ranks correspond to a rank."""

from __future__ import annotations

from harness.evidence.descent import parent_of
from harness.evidence.evidence import Evidence
from harness.world import World


def follows_reference(evidence: Evidence, run: int) -> bool:
    """Whether this run must equal the reference bit for bit.

    It need not if it, or a run that it continues, has another arrangement of ranks or other freeze
    settings.
    """
    if evidence.plan.workload_of(run) != evidence.plan.workload:
        return False
    parent = parent_of(evidence, run)
    return parent is None or follows_reference(evidence, parent)


def counterpart(rank: int, here: World, there: World) -> int:
    """Returns the rank that reads the same share of a batch; the last stage replaces missing ones.

    If the data-parallel degree differs there is no such rank, and any rank of the stage is as good
    as another.
    """
    stage = min(here.stage_of(rank), there.pp - 1)
    share = here.data_rank_of(rank) % there.degree
    return stage * there.stage_size + share * there.tp + rank % here.tp % there.tp


def same_shard(rank: int, here: World, there: World) -> tuple[int, ...]:
    """Returns the ranks of all stages that hold the same shard of what their stage holds.

    Both arrangements have the same ranks inside of a stage.
    """
    shard = rank % here.stage_size
    return tuple(stage * there.stage_size + shard for stage in range(there.pp))
