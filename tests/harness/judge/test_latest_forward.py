"""`latest_forward`: who may set `latest` back, and when it is nobody's fault that it is older."""

from __future__ import annotations

import pytest

from harness.evidence.operation import OPERATOR
from harness.evidence.record import SaveReturned
from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES
from harness.judge.verdict import Verdict
from harness.scenario.schema import Checkpoint
from tests.harness.judge.cases import Case, RunCase


def _ask(*runs: RunCase) -> Verdict:
    case = Case(runs=list(runs), checkpoint=Checkpoint(keep_last_n=0))
    return JUDGES["latest_forward"](case.evidence(), case.history())


def _saved(*steps: int) -> RunCase:
    run = RunCase()
    run.start()
    for step in steps:
        run.save(step)
    return run


def _resumed(step: int) -> RunCase:
    run = RunCase()
    run.start(step)
    return run


def test_a_pointer_that_is_set_back_from_an_acknowledged_checkpoint_is_lost_work() -> None:
    run = _saved(2, 4)
    run.point(2)
    verdict = _ask(run)
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.LOST_WORK)
    assert verdict.details == (
        f"run 0, after operation {len(run.operations) - 2}: `latest` names step_2, although step 4 "
        "is there and was acknowledged or resumed from",
    )


def test_a_step_that_is_acknowledged_again_counts_from_the_first_time() -> None:
    run = _saved(2, 4)
    run.point(2)
    run.record(SaveReturned(step=4, ordinal=3, index=len(run.operations)))
    assert _ask(run).state == "violated"


def test_it_need_not_pass_through_the_newer_one() -> None:
    run = _saved(2, 4)
    run.do("unlink", "latest")
    run.point(2)
    assert _ask(run).state == "violated"


def test_a_run_that_resumed_from_a_checkpoint_may_not_point_below_it() -> None:
    second = _resumed(4)
    second.point(2)
    assert _ask(_saved(2, 4), second).state == "violated"


def test_a_run_that_resumed_from_an_older_one_goes_on_from_there() -> None:
    second = _resumed(2)
    second.stage(3)
    second.commit(3)
    second.point(3)
    assert _ask(_saved(2, 4), second).state == "holds"


def test_what_only_one_rank_was_told_counts() -> None:
    run = _saved(2)
    run.begin(4)
    run.stage(4)
    run.commit(4)
    run.point(4)
    run.record(SaveReturned(step=4, ordinal=2, index=len(run.operations)), ranks=(0,))
    run.point(2)
    assert _ask(run).state == "violated"


@pytest.mark.parametrize(("rank", "state"), [(OPERATOR, "holds"), (0, "violated")])
def test_an_operator_may_set_it_back(rank: int, state: str) -> None:
    run = _saved(2, 4)
    run.do("unlink", "latest", rank=rank)
    run.do("symlink", "latest", "step_2", rank=rank)
    assert _ask(run).state == state


def test_a_checkpoint_that_is_gone_does_not_count() -> None:
    run = _saved(2, 4)
    run.do("rename", "step_4", ".trash-step_4")
    run.point(2)
    assert _ask(run).state == "holds"


@pytest.mark.parametrize(("rank", "state"), [(OPERATOR, "holds"), (0, "violated")])
def test_a_checkpoint_that_an_operator_damaged_does_not_count(rank: int, state: str) -> None:
    run = _saved(2, 4)
    run.written += b"?"
    path = "step_4/__0_0.distcp"
    run.do("open", path, rank=rank)
    run.do("write", path, rank=rank, size=1, data=len(run.written) - 1)
    run.do("fsync", path, rank=rank)
    run.point(2)
    assert _ask(run).state == state


def test_it_does_not_apply_without_a_pointer() -> None:
    assert not _ask(RunCase()).applies()
