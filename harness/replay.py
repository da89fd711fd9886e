"""Runs a failure again, from its file or from its run directory, and compares the results.

Exit status: 0 FIXED, and PASS if there was nothing to compare with; 1 SAME, and any other red
outcome of a scenario that is not a failure file; 3 OTHER; 125 INVALID, which `git bisect run` takes
as a commit that cannot be tested.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from harness.evidence.evidence import Evidence
from harness.evidence.read import read_evidence
from harness.judge.comparison import Answer, compare, describe_answer, know
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.plan.model import Implementation
from harness.prove import Proof, from_here, interpreter
from harness.report.text import describe
from harness.run.beginning import beginning_of
from harness.trial import Bench, try_plan
from harness.workspace import slug

GREEN, RED, OTHER, INVALID = 0, 1, 3, 125


class NoReplayError(Exception):
    """A run directory cannot be run again; the text says why."""


def replay_status(proof: Proof) -> int:
    """Returns the exit status for the result of a replay."""
    if proof.answer is Answer.OTHER:
        return OTHER
    if proof.answer is Answer.INVALID:
        return INVALID
    return GREEN if proof.outcome is Outcome.PASS else RED


def replay_directory(bench: Bench, directory: Path) -> Proof:
    """Run the plan of a run directory again, and compare with the result of that run.

    The implementation is the one that ran then, unless the bench has a non-default one. Raises
    NoReplayError.
    """
    before = _read(directory)
    plan = before.plan
    if bench.implementation != Implementation() and plan.command is None:
        plan = plan.model_copy(update={"implementation": bench.implementation})
    name = f"{slug(plan.name)}-replayed"
    trial = try_plan(bench, plan, name=name, beginning=beginning_of(before))
    then, now = know(judge(before)), know(trial.judgement)
    summary = describe_answer(then, now)
    proof = Proof(
        outcome=now.outcome,
        broken=now.broken,
        answer=compare(then, now),
        summary=summary,
        text=summary,
    )
    if trial.passed:
        trial.drop()
        return proof
    evidence = dataclasses.replace(trial.evidence, directory=from_here(trial.keep(name)))
    command = shlex.join([interpreter(), "-m", "harness", "replay", from_here(directory)])
    text = describe(evidence, trial.judgement, source=None, replay=command)
    return dataclasses.replace(proof, text=f"{summary}\n{text}", replay=command)


def _read(directory: Path) -> Evidence:
    try:
        return read_evidence(directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoReplayError(f"{directory} is not a whole run directory: {error}") from error
