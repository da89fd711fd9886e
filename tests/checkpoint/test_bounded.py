"""Whoever dies or hangs: every survivor has a typed error in bounded time, now and later."""

from pathlib import Path

import pytest

from tests.checkpoint import rank_jobs
from tests.checkpoint.ranks import run_ranks

# Far below any deadline in these jobs, far above what a busy machine needs for a few messages.
AT_ONCE_S = 2.0


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
    one, _, other = run_ranks(rank_jobs.a_rank_never_comes_back, tmp_path, world=3)
    for error, seconds in (*one, *other):
        assert error.startswith("PeerLostError")
        assert "rank 1" in error
        assert seconds < 2.0 + AT_ONCE_S


def test_a_save_does_not_need_the_groups_of_training(tmp_path: Path) -> None:
    for found in run_ranks(rank_jobs.save_after_the_process_group_is_gone, tmp_path, world=2):
        assert found == ["step_1", "step_2"]
