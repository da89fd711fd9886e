"""Every arrangement of ranks trains the same model: only the order of additions differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scenario.schema import Model
from harness.world import World
from tests.harness.jobs.drive import Warm, event_logs, make_plan, steps

STEPS = 4
NEAR = 1e-3
"""Of a loss. Sums in another order differ by 1e-7, and the first steps of Adam enlarge that."""
DRY = Model(layers=4, dropout=0.0)
"""Where ranks of two arrangements draw other numbers, dropout would tell them apart."""


def losses(warm: Warm, directory: Path, world: World, model: Model = DRY) -> list[float]:
    """The loss over the whole batch after each step."""
    directory.mkdir()
    plan = make_plan(STEPS, world=world, model=model)
    assert set(warm.run(directory, plan)) == {0}
    described = [steps(event_log) for event_log in event_logs(directory, plan)[-world.stage_size :]]
    means = []
    for step in range(1, STEPS + 1):
        found = [float.fromhex(one[step].loss or "nan") for one in described]
        means.append(sum(found) / len(found))
    return means


@pytest.mark.parametrize(
    ("world", "like"),
    [
        pytest.param(World(dp_replicate=2), World(dp_shard=2), id="ddp like fsdp"),
        pytest.param(World(dp_replicate=2, dp_shard=2), World(dp_shard=4), id="hsdp like fsdp"),
        pytest.param(World(tp=2), World(), id="tp like one rank"),
        pytest.param(World(dp_shard=2, tp=2), World(dp_shard=2), id="fsdp x tp like fsdp"),
        pytest.param(World(pp=2, schedule="1f1b"), World(pp=2), id="1f1b like gpipe"),
        pytest.param(World(pp=2, schedule="interleaved"), World(pp=2), id="interleaved like gpipe"),
        pytest.param(World(pp=2, tp=2), World(pp=2), id="pp x tp like pp"),
    ],
)
def test_an_arrangement_trains_like_one_whose_ranks_draw_the_same(
    warm: Warm, tmp_path: Path, world: World, like: World
) -> None:
    found, wanted = losses(warm, tmp_path / "one", world), losses(warm, tmp_path / "other", like)
    assert found == pytest.approx(wanted, rel=NEAR)
    assert found[-1] < found[0]


@pytest.mark.parametrize("wrapper", ["recompute", "compile"])
def test_wrapped_blocks_train_bit_for_bit_like_plain_ones(
    warm: Warm, tmp_path: Path, wrapper: str
) -> None:
    plain = Model(layers=2)
    wrapped = plain.model_copy(update={wrapper: True})
    found = losses(warm, tmp_path / "one", World(dp_shard=2), wrapped)
    assert found == losses(warm, tmp_path / "other", World(dp_shard=2), plain)


@pytest.mark.parametrize("world", [World(dp_shard=2), World(dp_replicate=2), World(tp=2)], ids=str)
def test_mixed_precision_is_near_and_not_equal(warm: Warm, tmp_path: Path, world: World) -> None:
    mixed = DRY.model_copy(update={"precision": "bf16_mixed"})
    found = losses(warm, tmp_path / "one", world, mixed)
    wanted = losses(warm, tmp_path / "other", world)
    assert found == pytest.approx(wanted, rel=2e-2)
    assert found != wanted


def test_tensor_parallel_peers_read_and_draw_the_same(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(2, world=World(dp_shard=2, tp=2))
    assert warm.run(tmp_path, plan) == [0, 0, 0, 0]
    last = [steps(event_log)[2] for event_log in event_logs(tmp_path, plan)]
    assert [one.samples == last[0].samples for one in last] == [True, True, False, False]
    assert [one.state.rng == last[2].state.rng for one in last] == [False, False, True, True]
    norms = [one.state.params["transformer.blocks.0.norm1.weight"] for one in last]
    assert norms[0] == norms[1]
    assert norms[0] != norms[2]


def test_an_interleaved_rank_holds_two_parts_under_their_global_names(
    warm: Warm, tmp_path: Path
) -> None:
    plan = make_plan(1, world=World(pp=2, schedule="interleaved"), model=DRY)
    assert warm.run(tmp_path, plan) == [0, 0]
    held = [steps(event_log)[1].state.params for event_log in event_logs(tmp_path, plan)]
    blocks = [
        sorted({name.split(".")[2] for name in names if ".blocks." in name}) for names in held
    ]
    assert blocks == [["0", "2"], ["1", "3"]]
    assert "transformer.embed.weight" in held[0]
    assert "transformer.head.weight" in held[1]
