"""One strike of an exploration: a scenario of its own, run, judged, and written down if it fails.

A failure leaves the scenario that replays it alone, with the operation named as scenarios name it
and not as the n-th of all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.evidence.evidence import Evidence, RunEvidence
from harness.faults.base import Target
from harness.faults.fail import Fail, Failing
from harness.faults.kill import Kill
from harness.faults.point import Point
from harness.faults.power_cut import PowerCut
from harness.faults.registry import AnyFault
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.plan.model import Plan
from harness.prove import Proof, report_failure
from harness.report.failure import scenario_text
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.exploration import Explore
from harness.scenario.read import check_source
from harness.scenario.source import Source, parse_source
from harness.search.explore.job import Explored
from harness.search.explore.points import Candidate, address
from harness.workspace import Workspace, slug

_ATTEMPTS = 3
"""In the background modes an operation can come in another phase or not at all in one run of
several; a point that is missed this often in a row is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """The outcome of one candidate. `landed` is False if its operation never came."""

    name: str
    landed: bool
    proof: Proof


def strike(
    job: Explored, candidate: Candidate, *, services: Services, workspace: Workspace
) -> Struck:
    """Strike, resume and judge one candidate."""
    name = f"{candidate.fault}, {tell_point(candidate.at)}"
    counts = job.explore.strikes == "nth_failure"
    attempts = 1 if counts else _ATTEMPTS
    source = _source(job, candidate, candidate.at, name)
    plan = _plan(job, source)
    for attempt in range(1, attempts + 1):
        directory = workspace.new_run(slug(plan.name))
        try:
            evidence = execute(plan, directory, services)
            landed = _landed(evidence, job.explore.run)
            if landed or attempt == attempts:
                if not landed and counts:
                    evidence = _without_strike(evidence, job.explore.run)
                proof = _judge(job, candidate, evidence, source, workspace)
                return Struck(name=name, landed=landed, proof=proof)
            workspace.drop(directory)
        except BaseException:
            workspace.keep(directory, slug(plan.name))
            raise
    raise AssertionError("the last attempt returns")


def tell_point(at: Point) -> str:
    """A point in words: `before the 2nd write of *.distcp, rank 1, save 2, flush`."""
    what = " ".join(word for word in (at.operation or "operation", at.path) if word)
    where = (f"rank {at.rank}", None if at.save is None else f"save {at.save}", at.phase)
    return f"{at.when} {what} #{at.nth}, {', '.join(word for word in where if word)}"


def _judge(
    job: Explored,
    candidate: Candidate,
    evidence: Evidence,
    source: Source,
    workspace: Workspace,
) -> Proof:
    judgement = judge(evidence)
    if judgement.outcome is Outcome.PASS:
        workspace.drop(Path(evidence.directory))
        return Proof(outcome=judgement.outcome)
    hit = _operation_hit(evidence.runs[job.explore.run])
    if hit is not None and candidate.at.path == "*":
        at = hit.model_copy(update={"when": candidate.at.when})
        source = _source(job, candidate, at, f"{candidate.fault}, {tell_point(at)}")
    return report_failure(evidence, judgement, source, workspace=workspace)


def _source(job: Explored, candidate: Candidate, at: Point, name: str) -> Source:
    """The scenario of one strike, as a file would spell it out."""
    number = job.explore.run
    run = job.scenario.runs[number]
    struck = run.model_copy(update={"faults": (*run.faults, _fault(job.explore, candidate, at))})
    runs = (*job.scenario.runs[:number], struck, *job.scenario.runs[number + 1 :])
    alone = {"name": f"{job.scenario.name} [{name}]", "runs": runs, "explore": None}
    text = scenario_text(job.scenario.model_copy(update=alone))
    return parse_source(text, shown=f"{job.shown}, one of its strikes")


def _fault(explore: Explore, candidate: Candidate, at: Point) -> AnyFault:
    if candidate.fault == "kill_all":
        return Kill(kill=Target(rank="all"), at=at)
    if candidate.fault == "power_cut":
        return PowerCut(power_cut=explore.power_cut, at=at)
    assert at.rank is not None, "a candidate names the rank of its operation"
    if candidate.fault == "kill":
        return Kill(kill=Target(rank=at.rank), at=at)
    times: int | Literal["always"] = "always" if candidate.fault == "fail_lasting" else 1
    return Fail(fail=Failing(rank=at.rank, error=explore.error, times=times), at=at)


def _plan(job: Explored, source: Source) -> Plan:
    scenario = check_source(source, gpus=job.gpus)
    return make_plan(scenario, source=source.path, implementation=job.implementation, gpus=job.gpus)


def _landed(evidence: Evidence, number: int) -> bool:
    if number >= len(evidence.runs):
        return False
    wanted = evidence.plan.runs[number].strikes[-1].id
    return any(one.strike == wanted for one in evidence.runs[number].landed)


def _without_strike(evidence: Evidence, number: int) -> Evidence:
    """The runs until the one in which the operation never came, as if no strike had been meant."""
    runs = list(evidence.plan.runs[: number + 1])
    runs[number] = runs[number].model_copy(update={"strikes": runs[number].strikes[:-1]})
    plan = evidence.plan.model_copy(update={"runs": tuple(runs)})
    return replace(evidence, plan=plan, runs=evidence.runs[: number + 1])


def _operation_hit(run: RunEvidence) -> Point | None:
    """The operation that the last strike to land fell on, as a scenario names it."""
    if not run.landed or run.landed[-1].index >= len(run.operations):
        return None
    return address(run.operations[run.landed[-1].index], run.operations)
