"""Runs cells, several at once: each worker process has a warm server."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass

from harness.judge.judge import judge
from harness.judge.outcome import Outcome, worst
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.planted.cell import Cell
from harness.planted.given import Given
from harness.run.execute import execute
from harness.run.services import Services
from harness.search.explore.explore import RedRecording
from harness.search.explore.job import Explored
from harness.search.explore.part import explore_part
from harness.search.explore.pool import open_services
from harness.workspace import Workspace, slug

HANG_DEADLINE_S = 15.0
"""For a bug that is known to hang: many times what a run takes, and a quarter of the default."""

_MOST_DETAILS = 300

_workspace: Workspace
_services: Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Managers to try with one scenario, until one is caught if `until_caught`."""

    given: Given
    managers: tuple[Implementation, ...]
    until_caught: bool = False
    deadline_s: float | None = None


@contextmanager
def open_pool(workspace: Workspace, workers: int) -> Iterator[ProcessPoolExecutor]:
    """The workers. What waits is dropped where the block ends with an exception."""
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(workspace,),
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def run_tasks(
    pool: ProcessPoolExecutor,
    tasks: Sequence[Task],
    note: Callable[[int, int, tuple[Cell, ...]], None],
) -> None:
    """Run all; `note` is called with how many are done, how many there are, and what came."""
    coming: list[Future[tuple[Cell, ...]]] = [pool.submit(_run, task) for task in tasks]
    for done, future in enumerate(as_completed(coming), 1):
        note(done, len(coming), future.result())


def _begin(workspace: Workspace) -> None:
    global _workspace, _services
    _workspace, _services = workspace, open_services(workspace)


def _run(task: Task) -> tuple[Cell, ...]:
    found: list[Cell] = []
    for manager in task.managers:
        if task.given.scenario.explore is None:
            found.append(_cell(task, manager))
        else:
            found.append(_explored(task.given, manager))
        if task.until_caught and found[-1].is_caught:
            break
    return tuple(found)


def _cell(task: Task, manager: Implementation) -> Cell:
    plan = make_plan(task.given.scenario, source=task.given.name, implementation=manager, gpus=0)
    if task.deadline_s is not None:
        plan = _within(plan, task.deadline_s)
    directory = _workspace.new_run(slug(plan.name))
    judgement = judge(execute(plan, directory, _services))
    _workspace.drop(directory)
    told = [line for one in judgement.verdicts if one.state == "violated" for line in one.details]
    told += [line for one in judgement.guards if not one.passed for line in one.details]
    return Cell(
        manager=manager.name,
        scenario=task.given.name,
        outcome=str(judgement.outcome),
        broken=judgement.broken,
        details=(told[0] if told else "")[:_MOST_DETAILS],
    )


def _within(plan: Plan, deadline_s: float) -> Plan:
    runs = tuple(run.model_copy(update={"deadline_s": deadline_s}) for run in plan.runs)
    return plan.model_copy(update={"runs": runs})


def _explored(given: Given, manager: Implementation) -> Cell:
    job = Explored(scenario=given.scenario, shown=given.name, implementation=manager, gpus=0)
    try:
        summary = explore_part(job, 0, 1, services=_services, workspace=_workspace)
        proofs = [one.proof for one in summary.struck]
    except RedRecording as error:
        proofs = [error.proof]
    outcomes = [one.outcome for one in proofs if one.outcome is not Outcome.PASS]
    return Cell(
        manager=manager.name,
        scenario=given.name,
        outcome=str(worst(failed_guards=(), violated=outcomes, unknown=0)),
        broken=tuple(dict.fromkeys(name for one in proofs for name in one.broken)),
        details=f"{len(outcomes)} of {len(proofs)} strikes are red",
    )
