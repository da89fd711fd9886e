"""Values that differ by rank under one name are restored on the rank they belong to."""

import re
from pathlib import Path

import pytest
import torch

from kempnerforge.checkpoint import AsyncCheckpointer
from kempnerforge.checkpoint.archives.shard_metadata import decode_metadata
from kempnerforge.config.schema import AsyncCheckpointMode
from tests.checkpoint import rank_turn_jobs, rank_value_jobs
from tests.checkpoint.rank_value_jobs import CASES
from tests.checkpoint.ranks import run_ranks

BOUND = {
    "parameters": "3 values .* the first: model.0.bias;",
    "moments": "4 values .* the first: optimizer.state.bias.exp_avg;",
    "moments_on_one_rank": "4 values .* the first: optimizer.state.bias.exp_avg;",
    "sharded_moments_on_one_rank": "4 values .* the first: optimizer.state.bias.exp_avg;",
    "none_on_one_rank": "2 values .* the first: optimizer.state.bias.momentum_buffer;",
    "sub_meshes": "1 values .* the first: model.weight;",
}
WITHOUT_IT = {
    "parameters": ["model.0", "model.1.bias"],
    "moments": ["optimizer.state"],
    "moments_on_one_rank": ["optimizer"],
    "sharded_moments_on_one_rank": ["optimizer.state"],
    "sub_meshes": ["model", "optimizer"],
}


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_each_rank_gets_its_own_values_back_twice_and_no_other_layout_does(
    tmp_path: Path, mode: AsyncCheckpointMode
) -> None:
    for found in run_ranks(rank_value_jobs.come_back, tmp_path, mode.value, world=2):
        assert found == dict.fromkeys(CASES, "")
    saved = tmp_path / mode.value
    (elsewhere,) = run_ranks(rank_value_jobs.load_elsewhere, saved, world=1)
    assert {name for name, (error, _) in elsewhere.items() if error} == set(BOUND)
    for name, words in BOUND.items():
        error, changed = elsewhere[name]
        assert not changed
        assert error.startswith("RedistributionError")
        assert re.search(words, error), error
    assert [name for name, (error, changed) in elsewhere.items() if not (error or changed)] == []
    (steps,) = run_ranks(rank_value_jobs.exclude_elsewhere, saved, WITHOUT_IT, world=1)
    assert steps == dict.fromkeys(WITHOUT_IT, 2)


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_values_that_differ_in_some_saves_only_come_back_from_each(
    tmp_path: Path, mode: AsyncCheckpointMode
) -> None:
    job = rank_turn_jobs.equal_and_differing_in_turn
    found = run_ranks(job, tmp_path, mode.value, world=2)
    assert found == [[1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 3.0, 5.0]]


def test_shards_of_one_name_on_two_meshes_come_back_each_on_its_own(tmp_path: Path) -> None:
    assert run_ranks(rank_turn_jobs.shards_of_two_meshes, tmp_path, world=4) == [""] * 4


def test_what_does_not_fit_on_one_rank_is_refused_on_all_before_anything_changes(
    tmp_path: Path,
) -> None:
    job = rank_turn_jobs.what_does_not_fit_on_one_rank
    for (norm, norm_changed), (spread, spread_changed) in run_ranks(job, tmp_path, world=2):
        assert norm.startswith("StateMismatchError")
        assert "rank 1: StateMismatchError: model.running_mean: the checkpoint has shape" in norm
        assert "rank 0: StateMismatchError: model._extra_state was saved as a dist" in spread
        assert (norm_changed, spread_changed) == ("", "")


def test_a_state_dict_of_a_program_may_have_names_like_those_of_a_ranks_own_values(
    tmp_path: Path,
) -> None:
    state = {"ranks": {"0": {"x": torch.ones(2)}}, "y": torch.zeros(2)}
    AsyncCheckpointer().save(state, str(tmp_path / "plain"))
    file = tmp_path / "plain" / ".metadata"
    names = decode_metadata(file.read_bytes(), where=str(file)).state_dict_metadata
    assert sorted(names) == ["ranks.0.x", "y"]


def test_a_checkpointer_without_a_manager_says_what_it_keeps_of_one_rank_only(
    tmp_path: Path,
) -> None:
    first, other = run_ranks(rank_value_jobs.checkpointer_alone, tmp_path, world=2)
    assert other == []
    assert [line.partition(": ")[2].rpartition("; give")[0] for line in first] == [
        "1 values differ by rank under one name, and one rank's is kept, as in DCP; the first: mine"
    ]


def test_each_rank_of_each_stage_gets_its_own_back(tmp_path: Path) -> None:
    assert run_ranks(rank_turn_jobs.own_values_in_stages, tmp_path, world=4) == [""] * 4
