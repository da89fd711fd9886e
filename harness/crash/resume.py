"""Starts the job again from crash states, and judges the result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from harness.crash.explore import CrashState, Exploration
from harness.crash.restore import restore
from harness.evidence.evidence import Evidence
from harness.judge.judge import Judgement
from harness.trial import Bench, Trial, try_plan
from harness.workspace import slug


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """One crash state, the result of resuming from it, and its run directory if it went wrong."""

    state: CrashState
    judgement: Judgement
    seconds: float
    directory: Path | None


def resume_all(
    bench: Bench, found: Exploration, evidence: Evidence, *, limit: int
) -> Iterator[Resumption]:
    """Start the job from each kind of state, or from `limit` of them if there are more."""
    states = found.resumable
    if len(states) > limit:
        places = sorted(Random(found.seed).sample(range(len(states)), limit))
        states = [states[place] for place in places]
    for number, state in enumerate(states):
        name = f"{slug(evidence.plan.name)}-crash-state-{number}"
        began = time.perf_counter()
        trial = resume(bench, state, found, evidence, name=name)
        seconds = time.perf_counter() - began
        kept = None if trial.passed else trial.keep(name)
        if trial.passed:
            trial.drop()
        yield Resumption(state=state, judgement=trial.judgement, seconds=seconds, directory=kept)


def resume(
    bench: Bench,
    state: CrashState,
    found: Exploration,
    evidence: Evidence,
    *,
    name: str = "crash-state",
) -> Trial:
    """Start the job from one state, and judge the result."""
    plan, beginning = restore(state, found.parts, evidence)
    return try_plan(bench, plan, name=name, beginning=beginning)
