"""Any layout of ranks loads what any other saved, and its own bit for bit."""

from pathlib import Path

import pytest

from kempnerforge.checkpoint.format.arrangement import all_meshes
from tests.checkpoint import layout_jobs
from tests.checkpoint.layout_jobs import ARRANGEMENTS
from tests.checkpoint.ranks import run_ranks

# DDP groups its gradients anew after its first backward, and sums of four differ by their order, so
# a resumed run of four replicas is not the uninterrupted one bit for bit, whoever saves it.
EXACT = [name for name in ARRANGEMENTS if name != "ddp"]


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_what_one_arrangement_saves_all_others_load(tmp_path: Path, arrangement: str) -> None:
    job = layout_jobs.save_and_load_in
    for found in run_ranks(job, tmp_path, arrangement, list(ARRANGEMENTS), world=4):
        assert {name: one["step"] for name, one in found.items()} == dict.fromkeys(ARRANGEMENTS, 3)
        assert [name for name, one in found.items() if not one["equal"]] == []
        assert found[arrangement]["own_buffer"]
        assert found[arrangement]["exact"] or arrangement not in EXACT


def test_two_replicas_go_on_bit_for_bit(tmp_path: Path) -> None:
    for found in run_ranks(layout_jobs.save_and_load_in, tmp_path, "ddp", ["ddp"], world=2):
        assert found["ddp"] == {"step": 3, "equal": True, "own_buffer": True, "exact": True}


def test_only_buffers_that_differ_are_written_by_every_rank(tmp_path: Path) -> None:
    job = layout_jobs.save_with_buffers
    same, different = tmp_path / "same", tmp_path / "different"
    assert run_ranks(job, same, True, world=2) == [["model.spread"]] * 2
    own = ["model.spread", "ranks.0.model.spread", "ranks.1.model.spread"]
    assert run_ranks(job, different, False, world=2) == [own] * 2


def test_a_buffer_of_another_shape_is_refused_on_all_ranks(tmp_path: Path) -> None:
    for error in run_ranks(layout_jobs.buffer_of_another_shape, tmp_path, world=2):
        assert error.startswith("StateMismatchError")
        assert "model.spread" in error


def test_each_rank_gets_its_own_extra_state_back(tmp_path: Path) -> None:
    found = run_ranks(layout_jobs.extra_state_of_each_rank, tmp_path, world=2)
    assert found == [[1.0], [2.0, 2.0]]


def test_meshes_of_all_ranks_stand_in_the_order_in_which_those_of_one_rank_stand() -> None:
    one = [{"axes": ["dp"], "sizes": [2]}, {"axes": ["dp", "tp"], "sizes": [2, 2]}]
    assert list(all_meshes([one, [], one[1:]])) == one
    assert list(all_meshes([one[1:], one[:1]])) == one
