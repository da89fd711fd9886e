"""Several ranks: exact resume, one error for all, bounded waits, one choice."""

from pathlib import Path

import pytest

from tests.checkpoint import rank_jobs
from tests.checkpoint.ranks import Died, run_ranks

MODES = ["disabled", "async", "async_with_pinned_mem"]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_resumed_three_times_equals_the_uninterrupted_one(tmp_path: Path, mode: str) -> None:
    for result in run_ranks(rank_jobs.resume_thrice, tmp_path, mode, world=2):
        assert result["found"] == result["expected"]


def test_saving_changes_nothing_also_at_step_0(tmp_path: Path) -> None:
    assert run_ranks(rank_jobs.saving_changes_nothing, tmp_path, world=2) == [True, True]


def test_two_stages_of_two_ranks_resume_exactly(tmp_path: Path) -> None:
    results = run_ranks(rank_jobs.pipeline_over_shards, tmp_path, world=4)
    assert [result["equal"] for result in results] == [True] * 4
    assert all(result["loaded"] == (2, 20, {}) for result in results)
    assert results[0]["names"] == [
        "manifest.json",
        "metadata.json",
        "pp0",
        "pp1",
        "ranks",
        "train_state.pt",
    ]


def test_a_pipeline_checkpoint_loads_without_stages(tmp_path: Path) -> None:
    saved = run_ranks(rank_jobs.pipeline_over_shards, tmp_path, world=4)
    loaded = run_ranks(rank_jobs.load_without_stages, tmp_path, world=2)
    for rank, found in enumerate(loaded):
        assert found["step"] == 2
        assert found["layers"] == [saved[0]["layer"], saved[2]["layer"]]
        assert found["moments"] == [saved[0]["moments"], saved[2]["moments"]]
        assert found["position"] == saved[rank]["position"]


def test_ranks_that_exit_with_a_save_under_way_finish_it(tmp_path: Path) -> None:
    run_ranks(rank_jobs.exit_with_a_save_under_way, tmp_path, world=2)
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_1")


@pytest.mark.parametrize("mode", MODES[:2])
def test_a_full_disk_on_one_rank_is_the_same_error_on_all(tmp_path: Path, mode: str) -> None:
    one, other = run_ranks(rank_jobs.one_rank_runs_out_of_space, tmp_path, mode, world=2)
    assert one == other
    assert list(one["errors"]) == [2, 3]
    assert "rank 1: OSError: [Errno 28] No space left on device" in one["errors"][2]
    assert one["errors"][2].startswith("CheckpointSaveError: saving step 2 to ")
    assert one["names"] == ["latest", "step_1", "step_4", "step_5"]
    assert one["loaded"] == 5


def test_a_default_device_that_is_not_the_host_changes_nothing(tmp_path: Path) -> None:
    job = rank_jobs.save_and_load_with_another_default_device
    for found in run_ranks(job, tmp_path, world=2):
        assert found == dict.fromkeys(MODES, (False, 1, True))


def test_a_background_error_is_raised_by_the_next_save_which_saves(tmp_path: Path) -> None:
    one, other = run_ranks(rank_jobs.error_reaches_the_next_save, tmp_path, world=2)
    assert one == other
    assert "saving step 1" in one["raised"]
    assert one["names"] == ["step_2", "step_3"]


def test_a_killed_rank_is_named_at_once(tmp_path: Path) -> None:
    one, killed, other = run_ranks(rank_jobs.a_rank_is_killed, tmp_path, world=3)
    assert isinstance(killed, Died)
    assert one["error"] == other["error"]
    assert one["error"].startswith("PeerLostError: saving step 2")
    assert one["ranks"] == other["ranks"] == [1]
    assert max(one["seconds"], other["seconds"]) < 30  # of 105 that the vote is waited for


def test_hung_storage_ends_at_the_deadline_and_the_next_save_works(tmp_path: Path) -> None:
    one, other = run_ranks(rank_jobs.storage_of_a_rank_hangs, tmp_path, world=2)
    assert one["error"] == other["error"]
    assert one["error"].startswith("StorageTimeoutError: saving step 1")
    assert "rank 1" in one["error"]
    assert max(one["seconds"], other["seconds"]) < 20  # before the others give it up
    assert one["names"] == ["step_2"]


def test_a_rank_that_comes_too_late_fails_too_and_the_next_save_works(tmp_path: Path) -> None:
    one, late, other = run_ranks(rank_jobs.a_rank_comes_too_late, tmp_path, world=3)
    assert one["errors"] == other["errors"]
    assert "rank 1: PeerLostError" in one["errors"][0]
    assert len(late["errors"]) == 1
    assert "gave up waiting" in late["errors"][0]
    assert one["names"] == ["step_2"]


def test_ranks_that_save_different_steps_are_refused(tmp_path: Path) -> None:
    one, other = run_ranks(rank_jobs.ranks_save_different_steps, tmp_path, world=2)
    assert one == other
    assert "rank 1: CheckpointSaveError: it saves step 5, rank 0 saves step 4" in one


def test_a_flipped_bit_makes_all_ranks_fall_back_before_any_change(tmp_path: Path) -> None:
    one, other = run_ranks(rank_jobs.fall_back_from_a_flipped_bit, tmp_path, world=2)
    assert one == other
    assert one["explicit"].startswith("CorruptCheckpointError")
    assert "__1_0.distcp: content differs" in one["explicit"]
    assert one["unchanged"]
    assert one["resolved"].endswith("checkpoints/step_1")
    assert one["loaded"] == 1


def test_another_number_of_ranks_loads_weights_and_refuses_loader_positions(
    tmp_path: Path,
) -> None:
    saved = run_ranks(rank_jobs.save_once, tmp_path, world=2)[0]
    (loaded,) = run_ranks(rank_jobs.another_number_of_ranks, tmp_path, world=1)
    assert loaded["error"].startswith("RedistributionError")
    assert loaded["step"] == 2
    assert loaded["weights"] == saved["weights"]


def test_a_loader_that_redistributes_takes_each_sample_once_at_any_degree(tmp_path: Path) -> None:
    taken: list[int] = []
    step = 0
    # Two ranks, four, and one; samples of the order that each batch size deals out.
    for world, batch, steps in ((2, 2, 3), (2, 2, 1), (4, 1, 2), (1, 3, 4)):
        job = rank_jobs.take_samples
        for start, found in run_ranks(job, tmp_path, batch, steps, 36, world=world):
            assert start == step
            taken += found
        step += steps
    assert sorted(taken) == list(range(36))


def test_the_checkpointer_alone_is_read_by_stock_dcp(tmp_path: Path) -> None:
    for found in run_ranks(rank_jobs.checkpointer_alone, tmp_path, world=2):
        assert found == dict.fromkeys(MODES, ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], False))
