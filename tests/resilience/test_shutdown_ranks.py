"""Shutdown of several ranks: all save the same step or none does, and no rank waits for ever."""

from pathlib import Path

import pytest

from tests.checkpoint.ranks import Died, run_ranks
from tests.resilience import shutdown_jobs

# Far below the minute that a rank waits for one that does not come, far above what a busy machine
# needs for a few messages.
AT_ONCE_S = 30.0


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_the_others_learn_at_once_that_a_rank_died_and_at_every_later_call(
    tmp_path: Path, victim: int
) -> None:
    results = run_ranks(shutdown_jobs.a_rank_dies, tmp_path, victim, world=4)
    assert isinstance(results.pop(victim), Died)
    for answers in results:
        assert [answer for answer, _ in answers] == ["PeerLostError"] * 2
        assert max(seconds for _, seconds in answers) < AT_ONCE_S


def test_a_rank_that_hangs_is_waited_for_until_the_deadline_and_fails_as_well(
    tmp_path: Path,
) -> None:
    results = run_ranks(shutdown_jobs.a_rank_hangs, tmp_path, world=3)
    for answers, given_s in results:
        assert given_s == 60.0
        assert [answer for answer, _ in answers] == ["PeerLostError"] * 2
        # The one that comes late does not wait for those who gave up.
        assert max(seconds for _, seconds in answers) < AT_ONCE_S


def test_connections_that_a_rank_does_not_come_to_open_are_waited_for_until_the_deadline(
    tmp_path: Path,
) -> None:
    results = run_ranks(shutdown_jobs.a_rank_never_asks, tmp_path, world=2)
    assert [answer for answer, _ in results[0]] == ["PeerLostError"] * 2
    assert sum(seconds for _, seconds in results[0]) < AT_ONCE_S


@pytest.mark.parametrize(
    ("signalled", "delay_s"), [([1], 0.1), ([0, 1, 2], 0.0), ([0, 1, 2], 0.2), ([2, 0], 0.01)]
)
def test_all_ranks_save_the_same_step_whoever_is_signalled_whenever(
    tmp_path: Path, signalled: list[int], delay_s: float
) -> None:
    results = run_ranks(shutdown_jobs.until_shutdown, tmp_path, signalled, delay_s, world=3)
    steps = {step for step, _ in results}
    assert len(steps) == 1
    assert results[0][1] == [f"step_{steps.pop()}"]


def test_signals_during_a_save_leave_it_whole_and_are_answered_after_it(tmp_path: Path) -> None:
    results = run_ranks(shutdown_jobs.signalled_in_every_part_of_a_save, tmp_path, world=2)
    assert results == [([True, True], ["step_1", "step_2"])] * 2


def test_ranks_that_ask_at_different_steps_save_neither(tmp_path: Path) -> None:
    one, other = run_ranks(shutdown_jobs.ranks_are_a_step_apart, tmp_path, world=2)
    assert one == other
    assert one[0] == [True]
    assert "rank 1: CheckpointSaveError: it saves step 3, rank 0 saves step 2" in one[1]
    assert [path.name for path in (tmp_path / "checkpoints").glob("step_*")] == ["step_1"]


def test_neither_group_nor_socket_nor_thread_is_left_behind(tmp_path: Path) -> None:
    assert run_ranks(shutdown_jobs.groups_are_given_back, tmp_path, world=2) == [(0, 0, [])] * 2


def test_asking_uses_no_group_of_training_and_survives_their_end(tmp_path: Path) -> None:
    results = run_ranks(shutdown_jobs.training_goes_on_meanwhile, tmp_path, world=2)
    assert results == [(False, 2.0, True)] * 2


def test_the_clock_runs_on_ranks_that_got_no_signal_themselves(tmp_path: Path) -> None:
    one, other = run_ranks(shutdown_jobs.the_other_rank_outlives_the_deadline, tmp_path, world=2)
    assert one == "finished"
    assert isinstance(other, Died)
    assert other.exit_code == 1
