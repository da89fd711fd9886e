"""A plan tells the scenario that it was made of."""

from __future__ import annotations

import pytest
from hypothesis import given

from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.plan.unmake import unmake_plan
from harness.scenario.launcher import LauncherSettings
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source
from harness.search.generate.strategies import scenarios


@given(scenarios())
def test_the_scenario_of_a_plan_has_the_same_plan(scenario: Scenario) -> None:
    plan = make_plan(scenario, source="a.yaml", implementation=Implementation())
    again = make_plan(unmake_plan(plan), source="a.yaml", implementation=Implementation())
    assert nameless(again) == nameless(plan)


OTHERS = """\
name: the faults that are not drawn
world: {pp: 2, dp_shard: 2, nodes: 2}
runs:
  - until_step: 8
    faults:
      - {second_job: {rank: 1, refused: Lock}, at: {save: 1, phase: flush}}
      - {operator: {delete: {path: latest}}, at: {rank: 1, step: 5}}
      - {slow_link: {node: 1, kbit_s: 640}, at: {step: 6}}
      - {cut_link: {node: 0, seconds: 1.5}, at: {rank: 3, step: 7}}
  - {until_step: 8, faults: [{power_cut: {filesystem: xfs, journal: kept}, at: {step: 8}}]}
"""


def test_faults_of_all_kinds_come_back() -> None:
    scenario = Scenario.model_validate(parse_source(OTHERS, shown="a").data)
    plan = make_plan(scenario, source="", implementation=Implementation())
    assert make_plan(unmake_plan(plan), source="", implementation=Implementation()) == plan


LIMITED = """\
name: the launcher and the fault that belongs to it
world: {dp_shard: 2}
launcher: {kind: slurm, restarts: 1}
runs:
  - {until_step: 8, faults: [{time_limit: {}, at: {step: 5}}]}
  - {until_step: 8}
"""


@pytest.mark.parametrize("text", [LIMITED, LIMITED.replace("world: {dp_shard: 2}", "seed: 3")])
def test_a_launcher_comes_back(text: str) -> None:
    scenario = Scenario.model_validate(parse_source(text, shown="a").data)
    plan = make_plan(scenario, source="", implementation=Implementation())
    assert plan.launcher == LauncherSettings(kind="slurm", restarts=1)
    assert make_plan(unmake_plan(plan), source="", implementation=Implementation()) == plan


def nameless(plan: Plan) -> Plan:
    """Without the names of strikes: that `all` ranks are hit is lost where there is one."""
    runs = tuple(
        run.model_copy(
            update={"strikes": tuple(one.model_copy(update={"id": ""}) for one in run.strikes)}
        )
        for run in plan.runs
    )
    return plan.model_copy(update={"runs": runs})
