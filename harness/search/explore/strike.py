"""One strike of an exploration: a scenario of its own, run, judged, and saved if it fails.

A failure leaves the scenario that replays it alone. It names the operation as scenarios do, and not
as the n-th of all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from harness.evidence.evidence import Evidence, RunEvidence
from harness.faults.base import Target
from harness.faults.fail import Fail, Failing
from harness.faults.kill import Kill
from harness.faults.point import Point
from harness.faults.power_cut import PowerCut
from harness.faults.registry import AnyFault
from harness.judge.judge import judge
from harness.prove import Proof, settle
from harness.scenario.exploration import Explore
from harness.scenario.source import Source
from harness.search.explore.job import Explored
from harness.search.explore.points import Candidate, address
from harness.search.scenarios import source_of
from harness.trial import Bench, try_plan

_ATTEMPTS = 3
"""In the background modes, an operation can come in another phase, or in one run of several not at
all; a point that is missed this often in a row is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrikeOutcome:
    """The outcome of one candidate. `fired` is False if its operation never came."""

    name: str
    fired: bool
    proof: Proof


def strike(
    bench: Bench, job: Explored, candidate: Candidate, known: tuple[str, ...] = ()
) -> StrikeOutcome:
    """Strike, resume and judge one candidate; drop a failure that breaks only what is known."""
    name = f"{candidate.fault}, {describe_point(candidate.at)}"
    source = _source(job, candidate, candidate.at, name)
    plan = bench.plan_of(source)
    counts = job.explore.strikes == "nth_failure"
    trial = try_plan(bench, plan)
    for _ in range(0 if counts else _ATTEMPTS - 1):
        if _fired(trial.evidence, job.explore.run):
            break
        trial.drop()
        trial = try_plan(bench, plan)
    fired = _fired(trial.evidence, job.explore.run)
    if counts and not fired:
        evidence = _without_strike(trial.evidence, job.explore.run)
        trial = replace(trial, evidence=evidence, judgement=judge(evidence))
    broken = trial.judgement.broken
    if broken and not {*broken} - {*known}:
        trial.drop()
        proof = Proof(outcome=trial.judgement.outcome, broken=broken)
        return StrikeOutcome(name=name, fired=fired, proof=proof)
    if not trial.passed:
        source = _named(job, candidate, trial.evidence) or source
    return StrikeOutcome(name=name, fired=fired, proof=settle(trial, source))


def describe_point(at: Point) -> str:
    """Describes a point: `before the 2nd write of *.distcp, rank 1, save 2, flush`."""
    what = " ".join(word for word in (at.operation or "operation", at.path) if word)
    where = (f"rank {at.rank}", None if at.save is None else f"save {at.save}", at.phase)
    return f"{at.when} {what} #{at.nth}, {', '.join(word for word in where if word)}"


def _named(job: Explored, candidate: Candidate, evidence: Evidence) -> Source | None:
    """Returns the scenario that names the operation that was hit as scenarios do, if one was."""
    hit = _operation_hit(evidence.runs[job.explore.run])
    if hit is None or candidate.at.path != "*":
        return None
    at = hit.model_copy(update={"when": candidate.at.when})
    return _source(job, candidate, at, f"{candidate.fault}, {describe_point(at)}")


def _source(job: Explored, candidate: Candidate, at: Point, name: str) -> Source:
    """Returns the scenario of one strike, as a file would spell it out."""
    number = job.explore.run
    run = job.scenario.runs[number]
    struck = run.model_copy(update={"faults": (*run.faults, _fault(job.explore, candidate, at))})
    runs = (*job.scenario.runs[:number], struck, *job.scenario.runs[number + 1 :])
    alone = {"name": f"{job.scenario.name} [{name}]", "runs": runs, "explore": None}
    shown = f"{job.shown}, one of its strikes"
    return source_of(job.scenario.model_copy(update=alone), shown=shown)


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


def _fired(evidence: Evidence, number: int) -> bool:
    if number >= len(evidence.runs):
        return False
    wanted = evidence.plan.runs[number].strikes[-1].id
    return any(one.strike == wanted for one in evidence.runs[number].fired)


def _without_strike(evidence: Evidence, number: int) -> Evidence:
    """Returns the runs up to the one whose operation never came, as if no strike was planned."""
    runs = list(evidence.plan.runs[: number + 1])
    runs[number] = runs[number].model_copy(update={"strikes": runs[number].strikes[:-1]})
    plan = evidence.plan.model_copy(update={"runs": tuple(runs)})
    return replace(evidence, plan=plan, runs=evidence.runs[: number + 1])


def _operation_hit(run: RunEvidence) -> Point | None:
    """Returns the operation that the last fired strike hit, as a scenario names it."""
    if not run.fired or run.fired[-1].index >= len(run.operations):
        return None
    return address(run.operations[run.fired[-1].index], run.operations)
