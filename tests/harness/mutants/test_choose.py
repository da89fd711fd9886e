"""Which cells are run: the named ones, the correct ones, a sample, and a search."""

from __future__ import annotations

from dataclasses import replace

from harness.mutants.choose import (
    candidates,
    correct_keys,
    named_keys,
    participation,
    sample_keys,
)
from harness.scenario.exploration import Explore
from tests.harness.mutants.bugs import CATALOGUE, EARLY, GONE, KILLED, LATE, NAMES, TORN, given


def test_each_bug_is_run_with_its_own_scenario() -> None:
    assert named_keys(CATALOGUE) == (("wrong:Early", KILLED), ("wrong:Late", TORN))


def test_a_control_is_run_with_what_it_takes_part_in() -> None:
    assert correct_keys(participation(CATALOGUE, given(*NAMES))) == (
        ("correct:Plain", KILLED),
        ("correct:Plain", TORN),
        ("correct:Careful", KILLED),
        ("correct:Careful", TORN),
        ("correct:Careful", GONE),
    )


def test_a_bug_is_run_with_all_scenarios_of_its_base_when_the_whole_table_is_asked_for() -> None:
    catalogue = replace(CATALOGUE, bugs=(EARLY,))
    found = sample_keys(catalogue, given(*NAMES), size=None, seed=0)
    assert found == (("wrong:Early", KILLED), ("wrong:Early", TORN))


def test_a_bug_is_run_with_its_own_scenario_although_its_base_leaves_it_out() -> None:
    catalogue = replace(CATALOGUE, bugs=(replace(EARLY, scenario=GONE),))
    found = sample_keys(catalogue, given(*NAMES), size=None, seed=0)
    assert ("wrong:Early", GONE) in found


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    scenarios = given(*(f"sync/{number}.yaml" for number in range(40)))
    first, again, other = (
        sample_keys(CATALOGUE, scenarios, size=3, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert len(first) == 3 * len(CATALOGUE.bugs)


def test_explorations_are_no_part_of_a_sample() -> None:
    plain, explored = given(KILLED, TORN)
    scenario = explored.scenario.model_copy(update={"explore": Explore(budget=2)})
    found = sample_keys(CATALOGUE, (plain, replace(explored, scenario=scenario)), size=None, seed=0)
    assert {name for _, name in found} == {KILLED}


def test_a_search_begins_with_bugs_of_the_same_file_and_area() -> None:
    far = replace(LATE, implementation="wrong:Far", scenario="loop/exit.yaml")
    near = replace(LATE, implementation="wrong:Near", scenario="sync/other.yaml")
    same = replace(LATE, implementation="wrong:Same", scenario="sync/torn.yaml::disabled")
    catalogue = replace(CATALOGUE, bugs=(far, near, same))
    (scenario,) = given(TORN)
    for seed in range(4):
        assert candidates(catalogue, scenario, seed=seed) == (
            "wrong:Same", "wrong:Near", "wrong:Far",
        )  # fmt: skip


def test_a_search_leaves_out_bugs_that_hang() -> None:
    hangs = replace(LATE, outcome="HANG")
    (scenario,) = given(KILLED)
    catalogue = replace(CATALOGUE, bugs=(EARLY, hangs))
    assert candidates(catalogue, scenario, seed=0) == ("wrong:Early",)
