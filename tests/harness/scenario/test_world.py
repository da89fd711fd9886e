"""Arrangements of ranks: which exist, in which order their axes come, and who shares what."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.world import World


def test_the_pipeline_is_outermost_and_tensor_parallel_peers_are_innermost() -> None:
    world = World(pp=2, dp_shard=2, tp=2)
    assert world.size == 8
    assert [world.stage_of(rank) for rank in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [world.data_rank_of(rank) for rank in range(8)] == [0, 0, 1, 1, 0, 0, 1, 1]


def test_replicas_and_shards_all_read_samples_of_their_own() -> None:
    world = World(dp_replicate=2, dp_shard=2)
    assert world.degree == 4
    assert [world.data_rank_of(rank) for rank in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("world", "described", "ddp", "sharded"),
    [
        (World(), "pp1 x fsdp1", False, True),
        (World(dp_shard=2), "pp1 x fsdp2", False, True),
        (World(dp_replicate=2), "pp1 x ddp2", True, False),
        (World(dp_replicate=2, dp_shard=2), "pp1 x hsdp2x2", False, True),
        (World(tp=2), "pp1 x tp2", False, False),
        (World(dp_shard=2, tp=2), "pp1 x fsdp2 x tp2", False, True),
        (World(pp=2, tp=2), "pp2 x tp2", False, False),
        (World(pp=2, schedule="interleaved"), "pp2 interleaved x fsdp1", False, True),
    ],
)
def test_one_rule_says_what_wraps_the_model(
    world: World, described: str, ddp: bool, sharded: bool
) -> None:
    assert (str(world), world.is_ddp, world.is_sharded) == (described, ddp, sharded)


@pytest.mark.parametrize(
    ("axes", "error"),
    [
        ({"pp": 2, "dp_replicate": 2}, "the job builds neither under `pp`"),
        ({"tp": 2, "dp_replicate": 2}, "the job builds neither under `tp`"),
        ({"schedule": "1f1b"}, "`schedule: 1f1b` needs pipeline stages"),
        ({"pp": 5}, "less than or equal to 4"),
    ],
)
def test_an_arrangement_that_the_job_does_not_build_is_refused(
    axes: dict[str, object], error: str
) -> None:
    with pytest.raises(ValidationError, match=error):
        World.model_validate(axes)


def test_stages_that_have_the_same_ranks_with_the_same_shards_are_known() -> None:
    assert World(pp=2, dp_shard=2).same_inside(World(dp_shard=2))
    assert World(pp=4, schedule="1f1b").same_inside(World(pp=2, schedule="interleaved"))
    assert not World(dp_replicate=2).same_inside(World(dp_shard=2))
    assert not World(dp_shard=2).same_inside(World(dp_shard=2, tp=2))
