"""A strike outside of steps and saves: what it excuses, and what it does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.evidence.operation import Fired
from harness.evidence.record import Entered, Evaluated, Finished, Raised, SaveReturned
from harness.judge.judge import Judgement, judge
from tests.harness.judge.cases import Case, RunCase, resumed, resumed_run, stepped
from tests.harness.strikes import strike


def _saved(until: int = 2) -> RunCase:
    """Saves step 2 and ends there."""
    run = RunCase(until_step=until)
    run.start()
    run.train(1, 2)
    run.save(2)
    run.finish(2)
    return run


def _strike(run: RunCase, fault: str, during: str, **more: Any) -> None:
    """A fault fires as rank 0 enters a period."""
    ranks = more.pop("ranks", (0, 1))
    name = f"run1.{fault}"
    run.strikes.append(strike(fault, ranks=ranks, name=name, during=during, **more))
    index = len(run.operations)
    run.fired.append(Fired(strike=name, index=index, time_s=run.now_s, ranks=ranks))


def _judge(*runs: RunCase) -> Judgement:
    return judge(Case(runs=list(runs)).evidence())


def test_ranks_that_die_of_a_signal_before_there_are_handlers_are_not_accused() -> None:
    run = RunCase()
    run.record(Entered(period="building"))
    _strike(run, "sigterm", "building")
    run.exits = (-15, -15)
    assert _judge(_saved(), run, resumed_run()).broken == ()


@pytest.mark.parametrize("during", ["loading", "training", "ending"])
def test_ranks_that_die_of_a_signal_once_there_are_handlers_are_accused(during: str) -> None:
    run = RunCase()
    _strike(run, "sigterm", during)
    run.exits = (-15, -15)
    assert "undisturbed_runs_end" in _judge(_saved(), run, resumed_run()).broken


@pytest.mark.parametrize(
    ("during", "more", "accused"),
    [
        ("building", {}, False),
        ("loading", {}, True),
        ("training", {}, True),
        ("evaluation", {}, True),
        ("evaluation", {"nth": 2}, False),
        ("ending", {}, False),
    ],
)
def test_a_run_that_goes_on_to_its_end_has_ignored_a_signal_that_came_early_enough(
    during: str, more: dict[str, Any], *, accused: bool
) -> None:
    run = resumed_run()
    for rank, event_log in enumerate(run.event_logs):
        after_step = event_log.index(stepped(rank, 4)) + 1
        event_log.insert(after_step, Entered(period="evaluation", step=4))
        event_log.insert(-1, Entered(period="evaluation", step=6))
    _strike(run, "sigterm", during, **more)
    assert ("undisturbed_runs_end" in _judge(_saved(), run).broken) == accused


def test_a_run_that_ends_early_after_a_signal_in_an_evaluation_is_not_accused() -> None:
    run = RunCase()
    run.start(2)
    run.train(3, 3)
    run.record(Entered(period="evaluation", step=3))
    _strike(run, "sigterm", "evaluation")
    run.begin(3)
    run.stage(3)
    run.commit(3)
    run.point(3)
    run.record(SaveReturned(step=3, ordinal=1, index=len(run.operations)))
    run.record(Finished(step=3, reason="shutdown"))
    assert _judge(_saved(), run).broken == ()


@pytest.mark.parametrize(("fault", "accused"), [("kill", False), ("sigterm", True)])
def test_a_rank_may_raise_while_another_decides_if_a_fault_has_ended_a_rank(
    fault: str, *, accused: bool
) -> None:
    run = RunCase()
    _strike(run, fault, "loading", ranks=(1,))
    run.event_logs[0].append(resumed(0, 2))
    said = Raised(during="load", type="RuntimeError", message="peer is gone", trace="", index=0)
    run.event_logs[1].append(said)
    run.exits = (1, 1)
    assert ("agreement" in _judge(_saved(), run, resumed_run()).broken) == accused


@pytest.mark.parametrize(("loss", "accused"), [("0x1.8p+1", False), ("0x1.9p+1", True)])
def test_the_losses_of_evaluations_are_compared_where_the_reference_has_one(
    loss: str, *, accused: bool
) -> None:
    case = Case(runs=[_saved(), resumed_run()])
    case.runs[1].record(Evaluated(step=4, loss=loss))
    case.runs[1].record(Evaluated(step=6, loss="0x1.0p+0"))
    evidence = case.evidence()
    expected = Evaluated(step=4, loss="0x1.8p+1")
    reference = tuple((*event_log, expected) for event_log in evidence.reference)
    judgement = judge(dataclasses.replace(evidence, reference=reference))
    assert ("resume_exact" in judgement.broken) == accused
