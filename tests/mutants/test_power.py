"""What was not synced is there after a kill, and gone after a power cut in the same place."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.faults.base import Target
from harness.faults.kill import Kill
from harness.judge.event_logs import resumed_steps
from harness.judge.judge import Judgement, judge
from harness.plan.model import Plan
from harness.run.execute import execute
from harness.run.services import Services
from harness.run.support import missing_disk
from harness.scenario.schema import Expect
from tests.harness.proving import plan_of, prove
from tests.mutants.catalogue import CONTROLS, UNSYNCED, Unsynced

_SHOWN = Expect(properties=("agreement", "resume_exact", "samples_exactly_once", "bounded"))
"""The properties that ask what the ranks saw, and not what the trace says about syncs."""


def cut_plan(scenario: str, implementation: str | None) -> Plan:
    """The plan of a scenario with a power cut; skips where the machine cannot do that."""
    plan = plan_of(scenario, implementation)
    assert plan.filesystem is not None
    reason = missing_disk(plan.filesystem)
    if reason is not None:
        pytest.skip(reason)
    return plan


def killed_instead(plan: Plan) -> Plan:
    """The same, with a kill of all ranks in the place of each power cut."""
    runs = []
    for run in plan.runs:
        strikes = [
            one.model_copy(update={"fault": Kill(kill=Target(), at=one.point)})
            for one in run.strikes
        ]
        runs.append(run.model_copy(update={"strikes": tuple(strikes)}))
    return plan.model_copy(update={"runs": tuple(runs)})


def shown(plan: Plan, directory: Path, services: Services) -> tuple[Judgement, set[int | None]]:
    """What the ranks of the next run saw, and the steps that they resumed from."""
    told = plan.model_copy(update={"expect": _SHOWN})
    evidence = execute(told, directory, services)
    return judge(evidence), set(resumed_steps(evidence.runs[-1]))


@pytest.mark.parametrize("bug", UNSYNCED, ids=str)
def test_a_power_cut_turns_the_scenario_red_for_the_property_that_names_the_bug(
    bug: Unsynced, services: Services, tmp_path: Path
) -> None:
    judgement = prove(cut_plan(bug.scenario, bug.implementation), tmp_path, services)

    violated = {one.property: one.details for one in judgement.verdicts if one.state == "violated"}
    assert bug.violates in violated
    assert judgement.outcome == bug.outcome


@pytest.mark.parametrize("bug", UNSYNCED, ids=str)
def test_the_disk_shows_the_bug_after_a_power_cut_and_not_after_a_kill(
    bug: Unsynced, services: Services, tmp_path: Path
) -> None:
    plan = cut_plan(bug.scenario, bug.implementation)

    killed, went_on = shown(killed_instead(plan), tmp_path / "killed", services)
    cut, came_back = shown(plan, tmp_path / "cut", services)

    assert (killed.outcome, went_on) == ("PASS", {bug.killed})
    assert came_back == (set() if bug.cut is None else {bug.cut})
    assert (came_back != went_on) or cut.outcome == "HARD_FAIL"


@pytest.mark.parametrize(
    "scenario",
    [
        "power/after-a-save.yaml::ext4",
        "power/after-a-save.yaml::xfs",
        "power/after-a-save.yaml::btrfs",
        "power/between-rename-and-latest.yaml::disabled-kept",
        "power/in-a-prune.yaml::disabled",
    ],
)
def test_a_power_cut_does_not_accuse_a_control_of_another_make(
    scenario: str, services: Services, tmp_path: Path
) -> None:
    judgement = prove(cut_plan(scenario, CONTROLS[0]), tmp_path, services)

    accused = [(one.property, one.details) for one in judgement.verdicts if one.is_red()]
    failed = [(one.name, one.details) for one in judgement.guards if not one.passed]
    assert (judgement.outcome, accused, failed) == ("PASS", [], [])


def test_the_names_of_files_are_kept_by_a_journal_although_their_directory_was_not_synced(
    services: Services, tmp_path: Path
) -> None:
    plan = cut_plan("power/after-a-save.yaml::ext4", "tests.mutants.ordering:ForgetsTheDirectory")

    judgement, came_back = shown(plan, tmp_path / "cut", services)

    assert (judgement.outcome, came_back) == ("PASS", {4})
