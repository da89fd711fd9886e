"""Handles scenarios that are not in a file: their source, plan, trial and failure file."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.judge.judge import Judgement
from harness.plan.asked import not_promised
from harness.plan.model import Plan, RunPlan
from harness.report.failure import failure_name, scenario_text
from harness.run.support import missing_disk
from harness.scenario.schema import Scenario
from harness.scenario.source import Source, parse_source
from harness.trial import Bench, Trial, try_plan
from harness.workspace import Workspace


def source_of(scenario: Scenario, *, shown: str | None = None) -> Source:
    """Returns the file that the scenario would have; `shown` names it in messages."""
    return parse_source(scenario_text(scenario), shown=shown or scenario.name)


def plan_of(bench: Bench, scenario: Scenario, *, silence_s: float | None = None) -> Plan:
    """Returns the plan of a scenario as if read from its file.

    `silence_s` is how long a run can be silent in addition to the waits that the scenario itself
    causes; without it the machine decides.
    """
    plan = bench.plan_of(source_of(scenario))
    if silence_s is None:
        return plan
    runs = tuple(
        run.model_copy(update={"deadline_s": silence_s + _waits_s(scenario, run)})
        for run in plan.runs
    )
    return plan.model_copy(update={"runs": runs})


def _waits_s(scenario: Scenario, run: RunPlan) -> float:
    """Twice the manager's deadline: it can pass once in a save and again in the next one."""
    strikes_s = sum(strike.fault.may_be_silent_s() for strike in run.strikes)
    return 2 * (scenario.checkpoint.timeout_s or 0.0) + strikes_s


def try_scenario(bench: Bench, scenario: Scenario, *, silence_s: float | None = None) -> Trial:
    """Run and judge a scenario."""
    return try_plan(bench, plan_of(bench, scenario, silence_s=silence_s))


def glance(bench: Bench, scenario: Scenario, *, silence_s: float | None = None) -> Judgement:
    """Run and judge a scenario; nothing is left of its run."""
    trial = try_scenario(bench, scenario, silence_s=silence_s)
    trial.drop()
    return trial.judgement


def lacking(bench: Bench, scenario: Scenario) -> str | None:
    """Returns why a scenario shows nothing of the implementation, or cannot run here, or None."""
    plan = plan_of(bench, scenario)
    return not_promised(plan) or missing_disk(plan.filesystem)


def failure_file(scenario: Scenario, workspace: Workspace) -> Path:
    """Returns where the failure file of a scenario is, or would be."""
    return workspace.failures / failure_name(scenario)


def withdraw(scenario: Scenario, workspace: Workspace) -> None:
    """Remove a failure that a smaller one replaces."""
    file = failure_file(scenario, workspace)
    file.unlink(missing_ok=True)
    shutil.rmtree(workspace.failures / file.stem, ignore_errors=True)
