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
from harness.trial import Bench
from harness.workspace import Workspace

ROOT = Path(__file__).parents[2]


def plan_of(
    scenario: str, implementation: str | None = None, *, deadline_s: float | None = None
) -> Plan:
    """The plan of a default scenario, `folder/file.yaml` or `folder/file.yaml::label`."""
    file, _, label = scenario.partition("::")
    found = read_file(ROOT / "scenarios" / file, gpus=0)[label]
    if isinstance(found, ScenarioError):
        raise found
    plan = make_plan(found.scenario, source=scenario, implementation=_manager(implementation))
    return plan if deadline_s is None else plan.within(deadline_s)


def bench_of(services: Services, folder: Path, manager: str | None = None) -> Bench:
    """A bench below `folder`; `manager` is one of those that tests have."""
    workspace = Workspace(root=folder / "runs", failures=folder / "failures")
    return Bench(services=services, workspace=workspace, implementation=_manager(manager), gpus=0)


def prove(plan: Plan, directory: Path, services: Services) -> Judgement:
    """Run the plan in a new folder below `directory` and judge it."""
    return judge(execute(plan, directory / "run", services))


def _manager(name: str | None) -> Implementation:
    return Implementation() if name is None else Implementation(name=name, path=str(ROOT))
