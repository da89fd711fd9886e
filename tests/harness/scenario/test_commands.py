"""Scenarios of a command: how they are spelled, and what does not go with them."""

from __future__ import annotations

import pytest

from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.plan.unmake import unmake_plan
from harness.report.failure import scenario_text
from harness.scenario.errors import ScenarioError
from harness.scenario.read import check_source
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source

WHOLE = """
name: a command
job: {command: [python, train.py, "{dir}"], nproc: 2, env: {A: "1"}}
layout: {checkpoints: "checkpoint-{step}", complete: [a.json], pointer: {file: latest}}
result: ["*.pt"]
step_line: 'step (\\d+)'
runs:
  - faults: [{kill: {rank: 1}, at: {operation: write, nth: 3}}]
  - {nproc: 1, command: [python, other.py, "{dir}"]}
expect: {first_step: 3}
"""


def scenario_of(text: str) -> Scenario:
    return check_source(parse_source(text, shown="x.yaml"), gpus=0)


def plan_of(text: str) -> Plan:
    return make_plan(scenario_of(text), source="", implementation=Implementation())


def test_a_plan_of_a_command_is_written_read_and_turned_back() -> None:
    scenario, plan = scenario_of(WHOLE), plan_of(WHOLE)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert unmake_plan(plan) == scenario
    assert scenario_of(scenario_text(scenario)) == scenario
    assert [plan.workload_of(run).world.size for run in (0, 1)] == [2, 1]
    assert plan.runs[1].command == ("python", "other.py", "{dir}")


def test_only_a_power_cut_asks_what_survives_one() -> None:
    assert "power_cuts" not in plan_of(WHOLE).implementation.promises
    cut = WHOLE.replace("kill: {rank: 1}", "power_cut: {}")
    assert "power_cuts" in plan_of(cut).implementation.promises


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("result:", "model: {}\nresult:", "model: belongs to the built-in job"),
        ("nproc: 1, ", "until_step: 3, ", "runs[1].until_step: belongs to the built-in job"),
        ('train.py, "{dir}"', "train.py", "no word contains {dir}"),
        ("{operation: write, nth: 3}", "{step: 3}", "a command has only operations"),
        ("kill: {rank: 1}", "kill: {rank: 2}", "there is no rank 2"),
        (
            "kill: {rank: 1}",
            "second_job: {rank: 1, refused: a}",
            "`second_job` needs the built-in job",
        ),
        ("checkpoint-{step}", "checkpoint", "must contain {step} once"),
        ("(\\d+)", "\\d+", "needs a group around the number"),
        ("(\\d+)", "(", "is not a regular expression"),
        ("first_step", "resumed_from_step", "what a command without a probe resumed from"),
        ("nproc: 1, ", "before: [{relocate: {to: b, how: move}}], ", "it cannot be relocated"),
        ("nproc: 2", "nproc: 0", "greater than or equal to 1"),
    ],
)
def test_what_a_command_decides_itself_is_refused(old: str, new: str, complaint: str) -> None:
    assert old in WHOLE
    with pytest.raises(ScenarioError) as error:
        scenario_of(WHOLE.replace(old, new))
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("result: [x]", "result: needs `job`"),
        ("layout: {checkpoints: 'a{step}'}", "layout: needs `job`"),
        ("runs: [{until_step: 2, nproc: 2}]", "runs[0].nproc: needs `job`"),
    ],
)
def test_what_is_about_a_command_needs_one(more: str, complaint: str) -> None:
    runs = "" if "runs" in more else "runs: [{until_step: 2}]"
    with pytest.raises(ScenarioError) as error:
        scenario_of(f"name: a\n{runs}\n{more}\n")
    assert complaint in str(error.value)
