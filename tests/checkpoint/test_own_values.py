"""Rank-local values besides the names that all ranks share."""

from pathlib import Path

import pytest

from kempnerforge.config.schema import AsyncCheckpointMode
from tests.checkpoint import own_value_jobs
from tests.checkpoint.ranks import run_ranks


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_extra_and_scheduler_come_back_on_each_rank_as_they_were_there(
    tmp_path: Path, mode: AsyncCheckpointMode
) -> None:
    found = run_ranks(own_value_jobs.extra_comes_back, tmp_path, mode.value, world=2)
    assert found == [["", "", "", ""]] * 2


def test_another_layout_gets_the_first_ranks_values_but_none_that_were_spread(
    tmp_path: Path,
) -> None:
    run_ranks(own_value_jobs.extra_comes_back, tmp_path, "disabled", world=2)
    ((error, changed, extra),) = run_ranks(own_value_jobs.extra_elsewhere, tmp_path, world=1)
    assert error.startswith("RedistributionError")
    assert "'ema', 'packed', 'same', 'scheduler' belongs to single ranks" in error
    assert not changed
    assert sorted(extra) == ["array", "common", "depth", "kind", "number", "tensor", "zero"]
    assert (extra["common"], extra["number"], extra["kind"]) == ("5", "2.0", "[1, 1, 1]")


def test_a_distributed_tensor_on_a_mesh_that_the_model_is_not_on_is_refused_by_key(
    tmp_path: Path,
) -> None:
    for found in run_ranks(own_value_jobs.unknown_meshes, tmp_path, world=2):
        extra, scheduler, moment = found
        assert "'mine' in the train state holds a distributed tensor on a device mesh" in extra
        assert "'scheduler' in the train state holds a distributed tensor" in scheduler
        assert "optimizer.state.weight.factor holds a distributed tensor" in moment


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_a_partitioned_optimizer_comes_back_part_by_part_and_in_no_other_layout(
    tmp_path: Path, mode: AsyncCheckpointMode
) -> None:
    found = run_ranks(own_value_jobs.partitioned, tmp_path, mode.value, world=2)
    assert found == [["", 2, "", "", 2, ""]] * 2
    ((error, changed),) = run_ranks(own_value_jobs.partitioned_elsewhere, tmp_path, world=1)
    assert error.startswith("RedistributionError")
    assert "the first: optimizer.state.0.bias.exp_avg;" in error
    assert not changed


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_wrappers_in_distributed_tensors_and_hooks_come_back_under_fsdp(
    tmp_path: Path, mode: AsyncCheckpointMode
) -> None:
    job = own_value_jobs.packed_and_fused_shards
    assert run_ranks(job, tmp_path, mode.value, world=2) == [["", ""]] * 2
