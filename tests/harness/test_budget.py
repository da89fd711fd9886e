"""The budget of a run follows the reference, and what the scenario lets a rank wait for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.budget import patient, read_reference, silence_s, survivors_s
from harness.evidence.evidence import Processes
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.scenario.read import check_source
from harness.scenario.schema import Checkpoint
from harness.scenario.source import parse_source

TEXT = """\
name: a
world: {dp_shard: 2}
checkpoint: {on_error: go_on, timeout_s: 2.5}
runs:
  - until_step: 6
    faults:
      - {stop: {rank: 1, seconds: 3}, at: {step: 2}}
      - {sigterm: {rank: all, grace_s: 4}, at: {step: 4}}
  - {until_step: 8}
"""


def plan_of(text: str) -> Plan:
    source = parse_source(text, shown="a.yaml")
    scenario = check_source(source, gpus=0)
    return make_plan(scenario, source="a.yaml", implementation=Implementation())


def reference(undelayed_s: float | None, seconds: float | None = None) -> Processes | None:
    """A reference that took so long; with `seconds`, on a loaded machine."""
    if undelayed_s is None:
        return None
    return Processes(
        exits=(0, 0),
        hung=(),
        leaked=(),
        stopped=(),
        seconds=seconds or undelayed_s,
        undelayed_s=undelayed_s,
        deadline_s=240.0,
    )


@pytest.mark.parametrize(
    ("reference_s", "number", "budget"),
    [
        (0.5, 1, 20.0 + 2.5 + 5.0),
        (3.0, 1, 60.0 + 2.5 + 5.0),
        (3.0, 0, 60.0 + 2.5 + 3.0 + 4.0 + 5.0),
        (None, 1, 240.0 + 2.5 + 5.0),
    ],
)
def test_the_reference_and_what_is_planned_make_the_budget(
    reference_s: float | None, number: int, budget: float
) -> None:
    assert silence_s(plan_of(TEXT), number, reference(reference_s)) == budget


def test_a_plan_that_says_its_own_deadline_has_it() -> None:
    plan = plan_of(TEXT)
    runs = tuple(run.model_copy(update={"deadline_s": 1.5}) for run in plan.runs)
    assert silence_s(plan.model_copy(update={"runs": runs}), 0, reference(3.0)) == 1.5


def test_a_plan_of_a_scenario_says_none() -> None:
    assert [run.deadline_s for run in plan_of(TEXT).runs] == [None, None]


@pytest.mark.parametrize(("seconds", "timeout_s"), [(1.0, 2.5), (4.0, 10.0), (400.0, 25.0)])
def test_the_deadline_of_the_manager_grows_with_the_load_and_the_budget_with_it(
    seconds: float, timeout_s: float
) -> None:
    plan, found = plan_of(TEXT), reference(1.0, seconds)
    assert plan.checkpoint is not None
    assert patient(plan.checkpoint, found).timeout_s == timeout_s
    assert silence_s(plan, 1, found) == 20.0 + timeout_s + 5.0


def test_a_manager_without_a_deadline_of_the_scenario_keeps_its_own() -> None:
    assert patient(Checkpoint(), reference(1.0, 4.0)) == Checkpoint()


def test_a_reference_has_none_of_its_own(tmp_path: Path) -> None:
    assert read_reference(tmp_path) is None


def test_survivors_have_the_deadline_of_their_manager_and_five_seconds_more() -> None:
    plan = plan_of(TEXT)
    assert survivors_s(plan, reference(1.0)) == 7.5
    assert survivors_s(plan, reference(1.0, 4.0)) == 15.0
    assert survivors_s(plan_of("name: a\nruns: [{until_step: 2}]\n"), reference(1.0)) == 5.0
