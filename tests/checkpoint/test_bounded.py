"""Whichever rank dies or hangs, all survivors get a typed error in bounded time, now and later."""

from pathlib import Path

import pytest

from kempnerforge.checkpoint.protocol import choosing, loading, saving
from tests.checkpoint import parted_jobs, rank_jobs
from tests.checkpoint.ranks import run_ranks

# Far below any deadline in these jobs, far above what a busy machine needs for a few messages.
AT_ONCE_S = 30.0


@pytest.mark.parametrize("mode", ["disabled", "async"])
@pytest.mark.parametrize("victim", [0, 1])
def test_after_a_death_every_later_call_fails_at_once(
    tmp_path: Path, victim: int, mode: str
) -> None:
    results = run_ranks(rank_jobs.after_a_death, tmp_path, victim, mode, world=3)
    survivors = [found for rank, found in enumerate(results) if rank != victim]
    for (first,), (again, nothing_pending, load, third) in survivors:
        for error, seconds in (first, again, load, third):
            assert error.startswith("PeerLostError")
            assert f"rank {victim}" in error
            assert seconds < AT_ONCE_S
        assert nothing_pending[0] == ""
    assert survivors[0][0][0][0].partition("(")[0] == survivors[1][0][0][0].partition("(")[0]


def test_no_new_groups_are_waited_for_where_a_member_is_dead(tmp_path: Path) -> None:
    one, _, late = run_ranks(rank_jobs.a_death_while_another_hangs, tmp_path, world=3)
    for error, _ in (*one, *late):
        assert error.startswith("PeerLostError")
    for error, seconds in (*one[1:], *late[2:]):
        assert "rank 1 died" in error
        assert seconds < AT_ONCE_S


def test_a_rank_that_hangs_for_good_costs_each_save_its_deadline_and_no_more(
    tmp_path: Path,
) -> None:
    wait_s = 4.0
    one, _, other = run_ranks(rank_jobs.a_rank_never_comes_back, tmp_path, wait_s, world=3)
    for error, seconds in (*one, *other):
        assert error.startswith("PeerLostError")
        assert "rank 1" in error
        assert seconds < 2 * wait_s


def test_a_save_does_not_need_the_groups_of_training(tmp_path: Path) -> None:
    for found in run_ranks(rank_jobs.save_after_the_process_group_is_gone, tmp_path, world=2):
        assert found == ["step_1", "step_2"]


def test_a_save_that_one_rank_gave_up_on_is_told_to_all_and_the_ranks_stay_together(
    tmp_path: Path,
) -> None:
    one, other = run_ranks(parted_jobs.one_rank_gave_its_save_up, tmp_path, world=2)
    for found in (one, other):
        assert found["error"].startswith("PeerLostError")
        assert "saving step 1" in found["error"]
        assert found["unchanged"]
        assert found["loaded"] == 1
        assert found["names"] == ["step_1", "step_2"]


def test_ranks_that_do_different_things_are_told_so_and_go_on(tmp_path: Path) -> None:
    one, other = run_ranks(parted_jobs.ranks_do_different_things, tmp_path, world=2)
    assert one == other
    assert one["errors"][0].startswith("CheckpointLoadError")
    assert one["errors"][1].startswith("CheckpointSaveError: saving step 2")
    assert all("rank 1: CheckpointError: it is in another operation" in it for it in one["errors"])
    assert one["loaded"] == 3


def test_an_exit_on_one_rank_while_it_takes_its_state_is_the_others_error(tmp_path: Path) -> None:
    one, ended = run_ranks(parted_jobs.a_rank_is_ended_while_it_takes_its_state, tmp_path, world=2)
    assert one["error"].startswith("CheckpointLoadError")
    assert "rank 1: SystemExit: 3" in one["error"]
    assert ended["error"] == "SystemExit: 3"
    assert one["loaded"] == ended["loaded"] == 1
    assert one["names"] == ["step_1", "step_2"]


@pytest.mark.parametrize("hanging", [0, 1])
def test_a_read_that_hangs_ends_the_load_and_condemns_no_checkpoint(
    tmp_path: Path, hanging: int
) -> None:
    one, other = run_ranks(parted_jobs.a_read_hangs, tmp_path, hanging, world=2)
    assert one["error"] == other["error"]
    assert one["error"].startswith("StorageTimeoutError: loading ")
    assert f"step_12 failed: rank {hanging}: StorageTimeoutError: reading" in one["error"]
    for found in (one, other):
        assert found["seconds"] < 4.0 + AT_ONCE_S
        assert found["collects"]
        assert found["loaded"] == 12


def test_who_is_late_says_so_before_the_others_give_it_up() -> None:
    """The jobs of these tests shorten what one rank may take, and only that."""
    assert saving._WRITE_SHARE < saving._VOTE_SHARE
    assert saving._VOTE_SHARE + saving._PUBLISH_SHARE < saving._ANSWER_SHARE
    assert choosing._WORK_SHARE < 1.0
    assert loading._TIDY_SHARE < saving._VOTE_SHARE
