"""Explores a scenario: runs it unstruck, chooses the points, and strikes each until none is left.

The baseline is an ordinary run of the scenario, judged as such. If it breaks something, only
strikes that break anything else are reported; if it proves nothing or hangs, nothing is struck. It
is made once and shared by all workers of a session, so that they agree on the points.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.prove import Proof, from_here
from harness.report.text import describe
from harness.scenario.exploration import ExploredFault
from harness.search.explore.instants import number_instants
from harness.search.explore.job import Explored
from harness.search.explore.points import Candidate, ChosenPoints, choose, nth_of_rank
from harness.search.explore.strike import StrikeOutcome, strike
from harness.system.errors import HarnessError
from harness.trial import Bench
from harness.workspace import slug

_MOST_BEYOND = 50
"""A run with this many more operations than the baseline trace is taken to go on forever."""


class RedBaseline(Exception):
    """The scenario proves nothing, or hangs, although nothing strikes it. `proof` says why."""

    def __init__(self, proof: Proof) -> None:
        super().__init__(proof)
        self.proof = proof

    def __str__(self) -> str:
        how = "hangs" if self.proof.outcome is Outcome.HANG else "proves nothing"
        return f"nothing strikes it, and it {how}:\n{self.proof.text}"


def choose_points(bench: Bench, job: Explored, *, merge: bool = True) -> ChosenPoints:
    """Run the scenario, or take its baseline, and list the points to strike. Raises RedBaseline."""
    plan = make_plan(
        job.scenario, source=job.shown, implementation=bench.implementation, gpus=bench.gpus
    )
    evidence = bench.baseline(plan)
    judgement = judge(evidence)
    if judgement.outcome in (Outcome.INVALID, Outcome.HANG):
        copy = bench.workspace.new_run(slug(plan.name))
        shutil.copytree(evidence.directory, copy)  # others share the original
        kept = bench.workspace.keep(copy, f"{slug(plan.name)}-unstruck")
        there = replace(evidence, directory=from_here(kept))
        text = describe(there, judgement, source=None, replay="")
        raise RedBaseline(Proof(outcome=judgement.outcome, text=text, broken=judgement.broken))
    number = job.explore.run
    instants = number_instants(evidence, number)
    size = evidence.plan.workload_of(number).world.size
    choice = choose(job.explore, evidence.runs[number], instants, size=size, merge=merge)
    return replace(choice, broken=judgement.broken, outcome=judgement.outcome)


def ends(job: Explored, choice: ChosenPoints) -> tuple[Candidate, ...]:
    """Returns the first operation past the baseline trace, for each rank and fault of
    `nth_failure`.

    Returns none if a budget left points out: then an end proves nothing.
    """
    if job.explore.strikes != "nth_failure" or not choice.is_exhaustive:
        return ()
    last: dict[tuple[ExploredFault, int], int] = {}
    for candidate in choice.chosen:
        assert candidate.at.rank is not None, "a candidate names its rank"
        last[candidate.fault, candidate.at.rank] = candidate.at.nth
    return tuple(
        nth_of_rank(job.explore, fault, rank, nth + 1) for (fault, rank), nth in last.items()
    )


def strike_until_clean(
    bench: Bench, job: Explored, end: Candidate, known: tuple[str, ...] = ()
) -> tuple[StrikeOutcome, ...]:
    """Strike the n-th operation for ever larger n, until a run has no such operation."""
    assert end.at.rank is not None, "a candidate names its rank"
    found: list[StrikeOutcome] = []
    while not found or found[-1].fired:
        if len(found) == _MOST_BEYOND:
            beyond = f"{_MOST_BEYOND} beyond the baseline trace"
            raise HarnessError(f"rank {end.at.rank} still makes operations {beyond}")
        candidate = nth_of_rank(job.explore, end.fault, end.at.rank, end.at.nth + len(found))
        found.append(strike(bench, job, candidate, known))
    return tuple(found)
