"""The table over mutants says who was caught, who was accused, and what caught nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.judge.properties import PROMISES
from harness.mutants.cell import MutantCell
from harness.mutants.table import Table, make_table, problems
from tests.harness.mutants.bugs import CATALOGUE, EARLY, GONE, KILLED, LATE, NAMES, TORN, cell

CAUGHT = (
    cell("wrong:Early", KILLED, "HARD_FAIL", "latest_durable", "whole_or_absent"),
    cell("wrong:Late", TORN, "HARD_FAIL", "nothing_lost"),
    cell("wrong:Late", KILLED, "PASS"),
    cell("correct:Plain", KILLED, "PASS"),
)


def table(*cells: MutantCell) -> Table:
    return make_table(CATALOGUE, {one.key: one for one in cells}, NAMES)


def described(found: Table) -> list[str]:
    """The problems that are not about properties which this small catalogue has no bug of."""
    return [one for one in problems(found) if "names no bug" not in one]


def test_a_bug_is_named_when_its_own_scenario_breaks_the_property_that_names_it() -> None:
    found = table(*CAUGHT)
    assert [row.is_named for row in found.rows] == [True, True]
    assert found.rows[0].broken == ("latest_durable", "whole_or_absent")
    assert described(found) == [
        f"{GONE} catches nothing, and the catalogue gives no reason to keep it"
    ]


def test_a_bug_is_missed_when_only_another_property_is_broken() -> None:
    found = table(cell("wrong:Early", KILLED, "LEAK", "clean"), *CAUGHT[1:])
    assert described(found)[0] == (
        f"Early is not caught by latest_durable: {KILLED} ended with LEAK by clean"
    )
    assert [bool(row.caught) for row in found.rows] == [True, True]


def test_an_invalid_run_catches_nobody() -> None:
    found = table(cell("wrong:Early", KILLED, "INVALID", "latest_durable"), *CAUGHT[1:])
    assert [row.is_named for row in found.rows] == [False, True]
    assert KILLED in found.silent


def test_a_bug_that_was_not_run_is_missed() -> None:
    assert described(table(*CAUGHT[1:]))[0].startswith("Early is not caught by latest_durable: ")


def test_another_outcome_than_the_catalogue_says_is_a_problem() -> None:
    found = table(cell("wrong:Early", KILLED, "LEAK", "latest_durable"), *CAUGHT[1:])
    assert described(found)[0] == "Early ends with LEAK, the catalogue says HARD_FAIL"


@pytest.mark.parametrize("outcome", ["HARD_FAIL", "INVALID"])
def test_a_control_that_is_not_green_is_accused(outcome: str) -> None:
    found = table(*CAUGHT, cell("correct:Careful", GONE, outcome, "integrity"))
    assert [one.manager for one in found.alarms] == ["correct:Careful"]
    assert (
        described(found)[0] == f"Careful is correct, and {GONE} ended with {outcome} by integrity"
    )


def test_what_a_control_leaves_out_does_not_accuse_it() -> None:
    found = table(*CAUGHT, cell("correct:Plain", GONE, "HARD_FAIL", "integrity"))
    assert found.alarms == ()


def test_a_scenario_that_catches_nothing_may_say_why_it_stays() -> None:
    catalogue = replace(CATALOGUE, quiet={"at_rest/*": "for another day"})
    found = make_table(catalogue, {one.key: one for one in CAUGHT}, NAMES)
    assert found.silent == (GONE,)
    assert described(found) == []


def test_each_property_without_a_bug_is_a_problem() -> None:
    missing = [one for one in problems(table(*CAUGHT)) if "names no bug" in one]
    assert len(missing) == len(PROMISES) - 2


def test_cells_of_scenarios_that_are_gone_count_for_nothing() -> None:
    found = table(*CAUGHT, cell("wrong:Late", "sync/removed.yaml", "HARD_FAIL", "clean"))
    assert [len(row.others) for row in found.rows] == [0, 1]


def test_bugs_are_listed_by_category_and_those_without_one_on_their_own() -> None:
    found = table(*CAUGHT).by_category
    assert {name: [row.bug for row in rows] for name, rows in found.items()} == {
        "async": [EARLY],
        "none of the collection": [LATE],
        "retention": [EARLY],
    }


def test_rows_come_in_the_order_of_the_catalogue() -> None:
    assert [row.bug for row in table().rows] == [EARLY, LATE]
