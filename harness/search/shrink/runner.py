"""Runners that tell whether scenarios fail alike: in this process, or in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Protocol, TypeVar

from harness.plan.model import Implementation
from harness.prove import Proof
from harness.run.services import Services
from harness.scenario.schema import Scenario
from harness.search.shrink.bench import Bench, forget, report, run_scenario
from harness.search.shrink.symptom import Symptom, shows
from harness.workspace import Workspace

T = TypeVar("T")

SILENCE_S = 10.0
"""Half of what a run may be silent elsewhere (`harness/run/budget.py`): a candidate that hangs
should not use up the time of the others. One that was only slow is found out when the smallest is
run with the budgets of all runs."""


class Runner(Protocol):
    """Answers by real runs."""

    @property
    def at_once(self) -> int:
        """How many scenarios are best asked about together."""

    def shows(self, some: Sequence[Scenario], symptom: Symptom) -> Sequence[bool]:
        """Which of them fail like that."""

    def report(self, scenario: Scenario, symptom: Symptom) -> Proof | None:
        """Run it once more and write the failure down; None where it did not fail like that."""


class Alone:
    """In this process, one after the other."""

    at_once = 1

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def shows(self, some: Sequence[Scenario], symptom: Symptom) -> Sequence[bool]:
        """Which of them fail like that."""
        return [shows_again(self._bench, one, symptom) for one in some]

    def report(self, scenario: Scenario, symptom: Symptom) -> Proof | None:
        """Run it once more and write the failure down."""
        return report_again(self._bench, scenario, symptom)


class Pool:
    """Worker processes, each with a warm server. They end with the pool."""

    def __init__(self, workspace: Workspace, implementation: Implementation, workers: int) -> None:
        self.at_once = workers
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(workspace, implementation),
        )

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have a worker call `work` with its bench and the arguments."""
        return self._pool.submit(_do, work, arguments)

    def shows(self, some: Sequence[Scenario], symptom: Symptom) -> Sequence[bool]:
        """Which of them fail like that."""
        coming = [self.submit(shows_again, one, symptom) for one in some]
        return [future.result() for future in coming]

    def report(self, scenario: Scenario, symptom: Symptom) -> Proof | None:
        """Run it once more and write the failure down."""
        return self.submit(report_again, scenario, symptom).result()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)


def shows_again(bench: Bench, scenario: Scenario, symptom: Symptom) -> bool:
    """Whether the scenario fails like that; nothing is left of its run."""
    trial = run_scenario(scenario, bench, silence_s=SILENCE_S)
    forget(trial, bench)
    return shows(trial.judgement, symptom)


def report_again(bench: Bench, scenario: Scenario, symptom: Symptom) -> Proof | None:
    """Run the scenario with the budgets of all runs, and write it down if it fails like that."""
    trial = run_scenario(scenario, bench)
    if shows(trial.judgement, symptom):
        return report(trial, bench)
    forget(trial, bench)
    return None


_bench: Bench


def _begin(workspace: Workspace, implementation: Implementation) -> None:
    global _bench
    services = Services(workspace.shared)
    _bench = Bench(services=services, workspace=workspace, implementation=implementation)
    Finalize(None, services.close, exitpriority=1)


def _do(work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    return work(_bench, *arguments)
