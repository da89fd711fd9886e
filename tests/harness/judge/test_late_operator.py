"""What an operator does while a run goes on is not held against the checkpointer; the rest is."""

from __future__ import annotations

import dataclasses

import pytest

from harness.evidence.operation import OPERATOR
from harness.evidence.record import SaveReturned
from harness.faults.actions import Pointing, SetLatest
from harness.judge.properties import JUDGES
from tests.harness.judge.cases import Case, RunCase
from tests.harness.strikes import operator


def _first_run() -> RunCase:
    """Saves steps 2 and 4."""
    run = RunCase()
    run.start()
    for step in (2, 4):
        run.train(step - 1, step)
        run.save(step)
    return run


def _resumed(step: int) -> RunCase:
    run = RunCase()
    run.start(step)
    run.finish(6)
    return run


def _repoint(run: RunCase, step: int) -> None:
    """An operator lets `latest` name an older step."""
    run.do("unlink", "latest", rank=OPERATOR)
    run.do("symlink", "latest", f"step_{step}", rank=OPERATOR)
    run.do("fsync", ".", rank=OPERATOR)
    run.strikes.append(operator(SetLatest(latest=Pointing(step=step)), step=5))


def _states(*runs: RunCase) -> dict[str, str]:
    case = Case(runs=list(runs))
    evidence, history = case.evidence(), case.history()
    names = ("latest_durable", "whole_or_absent", "retention", "nothing_lost")
    return {name: JUDGES[name](evidence, history).state for name in names}


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (OPERATOR, {"holds"}),
        (0, {"violated"}),
    ],
)
def test_a_shard_that_goes_is_a_defect_unless_an_operator_took_it(
    rank: int, expected: set[str]
) -> None:
    run = _first_run()
    run.do("unlink", "step_4/__0_0.distcp", rank=rank)
    run.do("fsync", "step_4", rank=rank)
    run.finish(4)

    states = _states(run)

    assert {states["latest_durable"], states["whole_or_absent"]} == expected


@pytest.mark.parametrize(("rank", "expected"), [(OPERATOR, "holds"), (0, "violated")])
def test_what_an_operator_took_while_the_job_trained_need_not_be_resumed_from(
    rank: int, expected: str
) -> None:
    run = _first_run()
    run.do("unlink", "step_4/__0_0.distcp", rank=rank)
    run.kill()

    assert _states(run, _resumed(2))["nothing_lost"] == expected


@pytest.mark.parametrize(("rank", "expected"), [(OPERATOR, "holds"), (0, "violated")])
def test_what_an_operator_took_before_the_job_was_told_of_it_was_told_truly(
    rank: int, expected: str
) -> None:
    run = RunCase()
    run.start()
    run.train(1, 2)
    run.save(2, described=False)
    run.do("unlink", "step_2/__0_0.distcp", rank=rank)
    run.do("fsync", "step_2", rank=rank)
    run.record(SaveReturned(step=2, ordinal=1, index=len(run.operations)))
    run.finish(2)

    assert _states(run)["nothing_lost"] == expected


def test_an_operator_is_no_excuse_for_what_was_never_durable() -> None:
    run = RunCase()
    run.start()
    run.train(1, 2)
    run.begin(2)
    run.stage(2)
    run.commit(2, sync=False)
    run.do("unlink", "step_2/__0_0.distcp", rank=OPERATOR)
    run.record(SaveReturned(step=2, ordinal=1, index=len(run.operations)))
    run.finish(2)

    assert _states(run)["nothing_lost"] == "violated"


def test_a_checkpoint_that_an_operator_damaged_late_is_damaged_at_the_next_start() -> None:
    run = _first_run()
    run.do("truncate", "step_4/__0_0.distcp", size=3, rank=OPERATOR)
    run.kill()

    for step, expected in ((2, "holds"), (4, "violated")):
        case = Case(runs=[run, _resumed(step)])
        assert JUDGES["integrity"](case.evidence(), case.history()).state == expected


def test_a_step_that_an_operator_chose_counts_until_the_next_save() -> None:
    chosen = _first_run()
    _repoint(chosen, 2)
    saved_again = dataclasses.replace(chosen, operations=list(chosen.operations))
    chosen.kill()
    assert _states(chosen, _resumed(2))["nothing_lost"] == "holds"

    saved_again.train(5, 6)
    saved_again.save(6)
    saved_again.kill()
    assert _states(saved_again, _resumed(2))["nothing_lost"] == "violated"


def test_a_foreign_name_that_came_late_stays_foreign() -> None:
    run = _first_run()
    run.do("mkdir", "notes", rank=OPERATOR)
    run.do("fsync", ".", rank=OPERATOR)
    run.finish(4)
    case = Case(runs=[run])
    assert JUDGES["clean"](case.evidence(), case.history()).state == "holds"

    run.operations[-2] = run.operations[-2]._replace(rank=0)
    case = Case(runs=[run])
    assert JUDGES["clean"](case.evidence(), case.history()).state == "violated"
