"""Runs the default scenarios from tests, with any implementation."""

from __future__ import annotations

from pathlib import Path

from harness.judge.judge import Judgement, judge
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file

ROOT = Path(__file__).parents[2]


def plan_of(
    scenario: str, implementation: str | None = None, *, deadline_s: float | None = None
) -> Plan:
    """The plan of a default scenario, `folder/file.yaml` or `folder/file.yaml::label`."""
    file, _, label = scenario.partition("::")
    found = read_file(ROOT / "scenarios" / file, gpus=0)[label]
    if isinstance(found, ScenarioError):
        raise found
    chosen = Implementation()
    if implementation is not None:
        chosen = Implementation(name=implementation, path=str(ROOT))
    plan = make_plan(found.scenario, source=scenario, implementation=chosen)
    if deadline_s is None:
        return plan
    runs = tuple(run.model_copy(update={"deadline_s": deadline_s}) for run in plan.runs)
    return plan.model_copy(update={"runs": runs})


def prove(plan: Plan, directory: Path, services: Services) -> Judgement:
    """Run the plan in a new folder below `directory` and judge it."""
    return judge(execute(plan, directory / "run", services))
