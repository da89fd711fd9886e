"""Runs cells in the workers of a pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace

from harness.judge.outcome import Outcome, worst
from harness.mutants.cell import MutantCell
from harness.mutants.given import Given
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.prove import Proof
from harness.search.explore.explore import RedBaseline
from harness.search.explore.job import Explored
from harness.search.explore.part import explore_part
from harness.search.pool import Pool
from harness.trial import Bench, try_plan

HANG_DEADLINE_S = 15.0
"""For a bug that is known to hang: many times the length of a run, and a quarter of the default."""

_MOST_DETAILS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantTask:
    """Managers to try with one scenario, until one is caught if `until_caught`."""

    given: Given
    managers: tuple[Implementation, ...]
    until_caught: bool = False
    deadline_s: float | None = None


def run_cells(
    pool: Pool,
    tasks: Sequence[MutantTask],
    note: Callable[[int, int, tuple[MutantCell, ...]], None],
) -> None:
    """Runs all tasks; `note` gets how many are done, how many there are, and the new cells."""
    coming: list[Future[tuple[MutantCell, ...]]] = [pool.submit(_run, task) for task in tasks]
    for done, future in enumerate(as_completed(coming), 1):
        note(done, len(coming), future.result())


def _run(bench: Bench, task: MutantTask) -> tuple[MutantCell, ...]:
    found: list[MutantCell] = []
    for manager in task.managers:
        theirs = replace(bench, implementation=manager)
        explores = task.given.scenario.explore is not None
        found.append(_explored(theirs, task.given) if explores else _cell(theirs, task))
        if task.until_caught and found[-1].is_caught:
            break
    return tuple(found)


def _cell(bench: Bench, task: MutantTask) -> MutantCell:
    manager, given = bench.implementation, task.given
    plan = make_plan(given.scenario, source=given.name, implementation=manager, gpus=bench.gpus)
    if task.deadline_s is not None:
        plan = plan.within(task.deadline_s)
    trial = try_plan(bench, plan)
    trial.drop()
    judgement = trial.judgement
    details = [
        line for one in judgement.verdicts if one.state == "violated" for line in one.details
    ]
    details += [line for one in judgement.guards if not one.passed for line in one.details]
    return MutantCell(
        manager=manager.name,
        scenario=given.name,
        outcome=str(judgement.outcome),
        broken=judgement.broken,
        details=(details[0] if details else "")[:_MOST_DETAILS],
    )


def _explored(bench: Bench, given: Given) -> MutantCell:
    try:
        summary = explore_part(bench, Explored(scenario=given.scenario, shown=given.name), 0, 1)
        proofs = [one.proof for one in summary.struck]
        proofs += [Proof(outcome=summary.choice.outcome, broken=summary.choice.broken)]
    except RedBaseline as error:
        proofs = [error.proof]
    outcomes = [one.outcome for one in proofs if one.outcome is not Outcome.PASS]
    return MutantCell(
        manager=bench.implementation.name,
        scenario=given.name,
        outcome=str(worst(failed_guards=(), violated=outcomes, unknown=0)),
        broken=tuple(dict.fromkeys(name for one in proofs for name in one.broken)),
        details=f"{len(outcomes)} of {len(proofs)} runs are red",
    )
