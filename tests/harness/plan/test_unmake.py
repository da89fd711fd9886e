"""A plan tells the scenario that it was made of."""

from __future__ import annotations

from hypothesis import given

from harness.generate.strategies import scenarios
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.plan.unmake import unmake_plan
from harness.scenario.schema import Scenario


@given(scenarios())
def test_the_scenario_of_a_plan_has_the_same_plan(scenario: Scenario) -> None:
    plan = make_plan(scenario, source="a.yaml", implementation=Implementation())
    again = make_plan(unmake_plan(plan), source="a.yaml", implementation=Implementation())
    assert nameless(again) == nameless(plan)


def nameless(plan: Plan) -> Plan:
    """Without the names of strikes: that `all` ranks are hit is lost where there is one."""
    runs = tuple(
        run.model_copy(
            update={"strikes": tuple(one.model_copy(update={"id": ""}) for one in run.strikes)}
        )
        for run in plan.runs
    )
    return plan.model_copy(update={"runs": runs})
