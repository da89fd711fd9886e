"""Which points there are, which of them are equal, and how an operation is found again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.evidence.evidence import Evidence, RunEvidence
from harness.scenario.exploration import Explore
from harness.search.explore.instants import Instants, number_instants
from harness.search.explore.points import ChosenPoints, address, choose
from tests.harness.judge.cases import Case, RunCase, stepped


def recorded(run: RunCase) -> Evidence:
    return Case(runs=[run]).evidence()


def choice_of(run: RunCase, *, merge: bool = True, **settings: Any) -> ChosenPoints:
    evidence = recorded(run)
    instants = number_instants(evidence, 0)
    return choose(Explore(**settings), evidence.runs[0], instants, size=2, merge=merge)


def described(choice: ChosenPoints) -> list[str]:
    return [f"{one.at.when} {one.at.operation} {one.at.path}" for one in choice.chosen]


def save_of_one_file() -> RunCase:
    run = RunCase(saves=1)
    run.do("mkdir", "d")
    run.put("d/a", b"bytes")  # open, two writes, fsync
    return run


def test_the_end_of_an_operation_and_the_beginning_of_the_next_are_one_point() -> None:
    choice = choice_of(save_of_one_file())
    assert (choice.operations, choice.points, choice.distinct) == (5, 10, 6)
    assert described(choice) == [
        "before mkdir d", "before open d/a", "before write d/a", "before write d/a",
        "before fsync d/a", "after fsync d/a",
    ]  # fmt: skip


def test_what_a_power_cut_would_leave_tells_points_apart() -> None:
    run = save_of_one_file()
    run.do("fsync", "d/a")  # nothing is left to sync
    assert choice_of(run).distinct == 6
    run.do("fsync", "d")
    assert choice_of(run).distinct == 7


def test_what_a_rank_wrote_down_tells_points_apart() -> None:
    run = save_of_one_file()
    run.event_logs[1].append(replace(stepped(1, 1), index=2))
    assert choice_of(run).distinct == 7


@pytest.mark.parametrize("elsewhere", [{"rank": 1}, {"thread": 2}])
def test_points_of_another_rank_or_thread_are_other_points(elsewhere: dict[str, Any]) -> None:
    run = RunCase(saves=1)
    run.do("mkdir", "d")
    run.do("mkdir", "e", **elsewhere)
    assert choice_of(run).distinct == 4


def test_the_death_of_one_rank_is_equal_only_around_an_operation_that_changed_nothing() -> None:
    run = save_of_one_file()
    assert choice_of(run, faults=("kill",)).distinct == 10
    run.do("fsync", "d/a")
    assert choice_of(run, faults=("kill",)).distinct == 11


def test_power_cuts_are_equal_as_deaths_of_all_are_but_never_across_a_sync() -> None:
    run = save_of_one_file()
    assert choice_of(run, faults=("power_cut",)).distinct == 6
    run.do("fsync", "d/a")  # nothing is left to sync, and a real journal may think otherwise
    assert choice_of(run, faults=("power_cut",)).distinct == 7
    run.do("fsync", "d/a", error=5)
    assert choice_of(run, faults=("power_cut",)).distinct == 7


def test_failures_are_never_equal_and_fall_where_a_file_system_could_fail() -> None:
    run = save_of_one_file()
    choice = choice_of(run, faults=("fail_once", "fail_lasting"), error="ENOSPC")
    assert described(choice) == [
        "before mkdir d", "before open d/a", "before write d/a", "before write d/a",
    ] * 2  # fmt: skip


def test_the_full_list_has_every_point() -> None:
    choice = choice_of(save_of_one_file(), merge=False)
    assert len(choice.chosen) == choice.distinct == choice.points == 10


def test_a_budget_draws_the_same_points_for_the_same_seed() -> None:
    drawn = [
        described(choice_of(save_of_one_file(), budget=2, seed=seed)) for seed in (1, 1, 2, 3, 4)
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(one) for one in drawn}) > 1
    assert all(len(one) == 2 for one in drawn)
    assert not choice_of(save_of_one_file(), budget=5).is_exhaustive
    assert choice_of(save_of_one_file(), budget=6).is_exhaustive


@pytest.mark.parametrize(
    ("settings", "points"),
    [({"ranks": (1,)}, 0), ({"ranks": (0,)}, 10), ({"operation": "write"}, 4),
     ({"phases": ("prune",)}, 0)],
)  # fmt: skip
def test_ranks_phases_and_operations_are_chosen(settings: dict[str, Any], points: int) -> None:
    assert choice_of(save_of_one_file(), merge=False, **settings).points == points


def test_the_nth_failure_counts_what_could_fail_rank_by_rank() -> None:
    run = save_of_one_file()
    run.do("mkdir", "e", rank=1)
    choice = choice_of(run, strikes="nth_failure", error="ENOSPC")
    found = [(one.fault, one.at.rank, one.at.nth) for one in choice.chosen]
    assert found == [
        (fault, rank, nth)
        for fault in ("fail_once", "fail_lasting")
        for rank, nth in ((0, 1), (0, 2), (0, 3), (0, 4), (1, 1))
    ]


def addresses(run: RunEvidence) -> list[tuple[str | None, int]]:
    found = [address(one, run.operations) for one in run.operations]
    return [(one.path, one.nth) for one in found]


def test_a_name_that_is_drawn_anew_is_found_again_and_its_files_are_not_counted_with_it() -> None:
    run = RunCase(saves=1)
    run.do("fsync", ".staging-step_2-d8c80f15b8a7e49b/a[1]")
    run.do("fsync", ".staging-step_2-d8c80f15b8a7e49b")
    run.do("fsync", ".staging-step_2-d8c80f15b8a7e49b")
    drawn = ".staging-step_2-" + 16 * "?"
    assert addresses(recorded(run).runs[0]) == [(f"{drawn}/a[[]1]", 1), (drawn, 1), (drawn, 2)]


def test_an_operation_before_the_first_save_is_counted_through_the_whole_run() -> None:
    run = RunCase()
    run.do("unlink", "a")
    found = address(recorded(run).runs[0].operations[0], recorded(run).runs[0].operations)
    assert (found.save, found.phase, found.operation, found.nth) == (None, None, "unlink", 1)


def test_a_later_run_begins_with_what_earlier_ones_left() -> None:
    first, second = save_of_one_file(), RunCase(saves=1)
    second.do("fsync", "d/a")
    evidence = Case(runs=[first, second]).evidence()
    assert number_instants(evidence, 1) == Instants(before=(0,), after=(0,))
    second.do("unlink", "d/a")
    evidence = Case(runs=[first, second]).evidence()
    assert number_instants(evidence, 1) == Instants(before=(0, 0), after=(0, 1))
