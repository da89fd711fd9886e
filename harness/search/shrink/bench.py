"""Runs and judges one scenario that stands in no file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.evidence.evidence import Evidence
from harness.judge.judge import Judgement, judge
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan, RunPlan
from harness.prove import Proof, report_failure
from harness.report.failure import failure_name, scenario_text
from harness.run.execute import execute
from harness.run.services import Services
from harness.run.support import missing_disk
from harness.scenario.devices import count_gpus
from harness.scenario.read import check_source
from harness.scenario.schema import Scenario
from harness.scenario.source import Source, parse_source
from harness.workspace import Workspace, slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The resources to run scenarios in this process."""

    services: Services
    workspace: Workspace
    implementation: Implementation


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A scenario that was run, and what came of it. Its run directory is still there."""

    source: Source
    evidence: Evidence
    judgement: Judgement


def plan_of(scenario: Scenario, bench: Bench, *, silence_s: float | None = None) -> Plan:
    """The plan of a scenario as its file would be read.

    `silence_s` is how long a run may be silent beyond what the scenario itself makes a rank wait;
    without it the machine decides.
    """
    gpus = count_gpus()
    source = source_of(scenario)
    plan = make_plan(
        check_source(source, gpus=gpus),
        source=source.path,
        implementation=bench.implementation,
        gpus=gpus,
    )
    if silence_s is None:
        return plan
    runs = tuple(
        run.model_copy(update={"deadline_s": silence_s + _waits_s(scenario, run)})
        for run in plan.runs
    )
    return plan.model_copy(update={"runs": runs})


def _waits_s(scenario: Scenario, run: RunPlan) -> float:
    """Twice the manager's deadline, because it is told in one save and met in the next."""
    strikes_s = sum(strike.fault.may_be_silent_s() for strike in run.strikes)
    return 2 * (scenario.checkpoint.timeout_s or 0.0) + strikes_s


def source_of(scenario: Scenario) -> Source:
    """The file that the scenario would have."""
    return parse_source(scenario_text(scenario), shown=scenario.name)


def run_scenario(scenario: Scenario, bench: Bench, *, silence_s: float | None = None) -> Trial:
    """Run and judge; the caller forgets or reports the trial."""
    plan = plan_of(scenario, bench, silence_s=silence_s)
    name = slug(plan.name)
    directory = bench.workspace.new_run(name)
    try:
        evidence = execute(plan, directory, bench.services)
        judgement = judge(evidence)
    except BaseException:
        bench.workspace.keep(directory, name)
        raise
    return Trial(source=source_of(scenario), evidence=evidence, judgement=judgement)


def lacking(scenario: Scenario, bench: Bench) -> str | None:
    """Why this machine cannot run a scenario that stands in no file, or None."""
    return missing_disk(plan_of(scenario, bench).filesystem)


def forget(trial: Trial, bench: Bench) -> None:
    """Drop the run directory."""
    bench.workspace.drop(Path(trial.evidence.directory))


def report(trial: Trial, bench: Bench) -> Proof:
    """Write the failure file and keep the run directory beside it."""
    return report_failure(trial.evidence, trial.judgement, trial.source, workspace=bench.workspace)


def failure_file(scenario: Scenario, workspace: Workspace) -> Path:
    """Where the failure file of a scenario is, or would be."""
    return workspace.failures / failure_name(scenario)


def withdraw(scenario: Scenario, workspace: Workspace) -> None:
    """Take back a failure for which a smaller one stands."""
    file = failure_file(scenario, workspace)
    file.unlink(missing_ok=True)
    shutil.rmtree(workspace.failures / file.stem, ignore_errors=True)
