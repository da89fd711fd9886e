"""Each mutant turns its scenario red, for the property that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.judge.properties import PROMISES
from harness.promises import DOCUMENTED
from harness.run.services import Services
from tests.harness.proving import plan_of, prove
from tests.mutants.catalogue import (
    CONTROLS,
    DAMAGED,
    IN_BACKGROUND,
    MUTANTS,
    PLAIN_AT_REST,
    READS_FAIL,
    REFUSALS,
    WEAKER,
    Mutant,
)
from tests.mutants.entry import ENDS_IN_ORDER, fenced

_DEADLINE_S = 12.0
"""A hang is one here much sooner than in a scenario; the others end long before."""


# By module: a worker imports it once for all of them.
_BY_MODULE = sorted(MUTANTS, key=lambda bug: bug.implementation)


@pytest.mark.parametrize("bug", [fenced(bug, scenario=bug.scenario) for bug in _BY_MODULE], ids=str)
def test_the_scenario_turns_red_for_the_property_that_names_the_bug(
    bug: Mutant, services: Services, tmp_path: Path
) -> None:
    hangs = bug.outcome == "HANG"
    plan = plan_of(bug.scenario, bug.implementation, deadline_s=_DEADLINE_S if hangs else None)

    judgement = prove(plan, tmp_path, services)

    violated = {one.property: one.details for one in judgement.verdicts if one.state == "violated"}
    violated |= {one.name: one.details for one in judgement.guards if not one.passed}
    assert (bug.caught_by in violated, judgement.outcome) == (True, bug.outcome), violated


@pytest.mark.parametrize(("manager", "scenario"), WEAKER)
def test_a_weaker_fault_does_not_show_the_bug(
    manager: str, scenario: str, services: Services, tmp_path: Path
) -> None:
    judgement = prove(plan_of(scenario, f"tests.mutants.{manager}"), tmp_path, services)
    assert judgement.outcome == "PASS", judgement.verdicts


def test_a_strike_falls_in_the_save_that_writes_in_place_again(
    services: Services, tmp_path: Path
) -> None:
    scenario = "signals/second-save-of-a-step-killed.yaml::disabled"
    judgement = prove(
        plan_of(scenario, "tests.mutants.publishing:WritesInPlace"), tmp_path, services
    )

    fired = next(one for one in judgement.guards if one.name == "strikes_fired")
    assert (fired.details, judgement.outcome) == ((), "HARD_FAIL")


# Stock DCP hides ENOSPC behind an error of its archive writer and names no rank, so a manager that
# stands on it cannot keep `bounded` when the storage fails. It saves in the main thread, which
# nothing starves.
_BEYOND = ("storage/", "at_rest/", "layouts/", "state/", "async/threads-starved.yaml")
_WITHOUT_STORAGE_FAULTS = sorted(
    {bug.scenario for bug in MUTANTS if not bug.scenario.startswith(_BEYOND)}
)
OTHER_FORMS = tuple({bug.scenario: bug for bug in MUTANTS if bug.scenario[:6] == "state/"}.values())


@pytest.mark.parametrize(
    ("manager", "scenario"),
    [fenced(CONTROLS[0], scenario, scenario=scenario) for scenario in _WITHOUT_STORAGE_FAULTS]
    + [(CONTROLS[0], scenario) for scenario in PLAIN_AT_REST]
    + [("tests.mutants.checksums:Checksums", scenario) for scenario in DAMAGED]
    + [("tests.mutants.controls:RaisesLikeTorch", "storage/disk-full-once.yaml::disabled")]
    + [("tests.mutants.groups:SavesInItsGroup", scenario) for scenario in IN_BACKGROUND]
    + [("tests.mutants.own_form:OwnForm", bug.scenario) for bug in OTHER_FORMS]
    + [("tests.mutants.own_form:TriesAgain", scenario) for scenario in READS_FAIL]
    + [(manager, "sync/killed-in-prune-half-way.yaml") for manager in CONTROLS[1:]],
)
def test_a_control_of_another_make_is_not_accused(
    manager: str, scenario: str, services: Services, tmp_path: Path
) -> None:
    judgement = prove(plan_of(scenario, manager), tmp_path, services)

    accused = [(one.property, one.details) for one in judgement.verdicts if one.is_red()]
    failed = [(one.name, one.details) for one in judgement.guards if not one.passed]
    assert (judgement.outcome, accused, failed) == ("PASS", [], [])


def test_every_property_is_the_one_that_catches_some_bug() -> None:
    assert {bug.caught_by for bug in MUTANTS} - REFUSALS - {ENDS_IN_ORDER} == set(PROMISES)


def test_without_deadlines_a_hang_after_a_fault_is_listed_and_the_job_is_started_again(
    services: Services, tmp_path: Path
) -> None:
    manager, scenario = "tests.mutants.erring:WaitsForEver", "storage/write-hangs.yaml::disabled"
    plan = plan_of(scenario, manager, deadline_s=_DEADLINE_S)
    less = plan.implementation.model_copy(update={"promises": DOCUMENTED})

    judgement = prove(plan.model_copy(update={"implementation": less}), tmp_path, services)

    assert (judgement.outcome, judgement.broken) == ("PASS", ())
    assert judgement.resumed != ()
    assert any(one.startswith("not promised: bounded (") for one in judgement.left_out)
