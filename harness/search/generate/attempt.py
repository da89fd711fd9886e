"""One generated scenario: run its job unstruck, draw it, run it, judge it, note what it struck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.evidence.evidence import Evidence
from harness.judge.judge import Judgement, judge
from harness.judge.outcome import Outcome
from harness.prove import Proof, settle
from harness.report.failure import scenario_text
from harness.report.title import titled
from harness.scenario.schema import Scenario
from harness.search.generate.candidates import read_candidates
from harness.search.generate.coverage import cells_of, note
from harness.search.generate.job import Areas
from harness.search.generate.stream import is_first_of_job, job_of, scenario_of
from harness.search.scenarios import lacking, plan_of, source_of, try_scenario, withdraw
from harness.search.shrink.change import with_run
from harness.search.shrink.reduce import reduce_failure
from harness.search.shrink.runner import Alone
from harness.search.shrink.signature import Signature, signature_of
from harness.trial import Bench, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The outcome of one generated scenario.

    `vacuous` is a scenario that proves nothing, for the `reason`: a strike never fired, or its job
    failed without one. `skipped` was not run, because this machine lacks what it needs. `broken` is
    one on which the harness itself failed. `signature` and `proof` belong to one that failed.
    """

    number: int
    scenario: Scenario
    came: Literal["passed", "vacuous", "skipped", "failed", "broken"]
    signature: Signature | None = None
    proof: Proof | None = None
    reason: str = ""


def attempt(bench: Bench, seed: int, number: int, without: Areas = frozenset()) -> Attempt:
    """Draw the n-th scenario of a seed, and run it."""
    job = titled(job_of(seed, number, without=without))
    baseline = bench.baseline(plan_of(bench, job))
    if judge(baseline).outcome is not Outcome.PASS:
        # The job fails although nothing strikes it: report that scenario, once.
        if not is_first_of_job(number):
            reason = "its job fails although nothing strikes it"
            return Attempt(number=number, scenario=job, came="vacuous", reason=reason)
        return _judged(number, job, try_scenario(bench, job))
    scenario = scenario_of(seed, number, read_candidates(baseline), without=without)
    if lacks := lacking(bench, scenario):
        return Attempt(number=number, scenario=scenario, came="skipped", reason=lacks)
    trial = try_scenario(bench, scenario)
    note(bench.workspace.failures, cells_of(trial.evidence))
    if not _misses(trial.judgement):
        return _judged(number, scenario, trial)
    rest = without_unfired(scenario, trial.evidence)
    breaks = any(one.state == "violated" for one in trial.judgement.verdicts)
    trial.drop()
    if breaks:
        again = try_scenario(bench, rest)
        if not _misses(again.judgement) and signature_of(again.judgement) is not None:
            return _judged(number, rest, again)
        again.drop()
    return Attempt(number=number, scenario=scenario, came="vacuous", reason="a strike never fired")


def describe_failure(found: Attempt, bench: Bench, *, seconds: float) -> str:
    """Shrink a failure, if there is time for it; returns the report of the smallest."""
    assert found.signature is not None, "what failed has a signature"
    assert found.proof is not None, "what failed was written down"
    if seconds <= 0:
        return found.proof.text
    reduced = reduce_failure(found.scenario, found.signature, Alone(bench), seconds=seconds)
    if reduced.proof is None:
        return f"{found.proof.text}\n\n{reduced}"
    if scenario_text(reduced.scenario) != scenario_text(found.scenario):
        withdraw(found.scenario, bench.workspace)
    return f"generated-{found.number}: {found.scenario.name}\n{reduced}\n\n{reduced.proof.text}"


def without_unfired(scenario: Scenario, evidence: Evidence) -> Scenario:
    """Returns the scenario with only those strikes that fired."""
    for number, run in enumerate(evidence.runs):
        fired = {one.strike for one in run.fired}
        planned = evidence.plan.runs[number].strikes
        left = tuple(
            fault
            for fault, strike in zip(scenario.runs[number].faults, planned, strict=True)
            if strike.id in fired
        )
        scenario = with_run(scenario, number, faults=left)
    return titled(scenario)


def _misses(judgement: Judgement) -> bool:
    """Whether the only problem is a strike that did not fire, or an error with no time to heal."""
    broken = {one.name for one in judgement.guards if one.outcome is Outcome.INVALID}
    return broken == {"strikes_fired"}


def _judged(number: int, scenario: Scenario, trial: Trial) -> Attempt:
    signature = signature_of(trial.judgement)
    proof = settle(trial, source_of(scenario))
    if signature is None:
        return Attempt(number=number, scenario=scenario, came="passed")
    return Attempt(
        number=number, scenario=scenario, came="failed", signature=signature, proof=proof
    )
