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
from harness.evidence.read import read_evidence
from harness.judge.judge import Judgement, judge
from harness.plan.place import need_of
from harness.run.execute import run_start, tell_gpus
from harness.run.launches import launches
from harness.run.services import Services
from harness.trial import Bench
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
        directory = bench.workspace.new_run(name)
        began = time.perf_counter()
        judgement = resume(state, found, evidence, directory, bench.services)
        seconds = time.perf_counter() - began
        kept: Path | None = None
        if judgement.outcome == "PASS":
            bench.workspace.drop(directory)
        else:
            kept = bench.workspace.keep(directory, name)
        yield Resumption(state=state, judgement=judgement, seconds=seconds, directory=kept)


def resume(
    state: CrashState,
    found: Exploration,
    evidence: Evidence,
    directory: Path,
    services: Services,
) -> Judgement:
    """Put one state into `directory`, which is created, start the job there, and judge it."""
    plan = restore(state, found.parts, evidence, directory)
    number = len(plan.runs) - 1
    (directory / f"run{number}").mkdir()
    with services.broker.lease(need_of(plan)) as lease:
        tell_gpus(directory, lease)
        with launches(plan, directory, services) as starts:
            run_start(plan, number, directory, starts.launch(number))
    return judge(read_evidence(directory))
