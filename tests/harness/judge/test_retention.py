"""`retention`: how many checkpoints a run keeps, and whose they are."""

from __future__ import annotations

import pytest

from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES
from harness.judge.verdict import Verdict
from harness.scenario.schema import Checkpoint, DynamicWindow
from tests.harness.judge.cases import Case, RunCase, correct, resumed_run


def _judge(name: str, case: Case) -> Verdict:
    return JUDGES[name](case.evidence(), case.history())


def _one_run(run: RunCase, **more: object) -> Case:
    return Case(runs=[run], **more)  # type: ignore[arg-type]


def test_a_checkpoint_too_many_at_the_end_is_a_leak() -> None:
    case = correct(checkpoint=Checkpoint(keep_last_n=1))
    verdict = _judge("retention", case)
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.LEAK)
    assert verdict.details == ("step_4, step_6 are left at the end, keep_last_n is 1",)


@pytest.mark.parametrize(("saves", "state"), [(False, "holds"), (True, "violated")])
def test_what_a_killed_run_left_is_deleted_by_the_next_save_and_not_before(
    saves: bool, state: str
) -> None:
    run = RunCase()
    run.start()
    run.save(2)
    run.save(4)
    run.kill()
    following = RunCase()
    following.start(4)
    if saves:
        following.save(6)
        following.prune(2)
    following.finish(6)
    case = Case(runs=[run, following], checkpoint=Checkpoint(keep_last_n=1))
    assert _judge("retention", case).state == state


def test_a_checkpoint_too_few_is_lost_work() -> None:
    verdict = _judge("retention", correct(checkpoint=Checkpoint(keep_last_n=3)))
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.LOST_WORK)
    assert "2 whole checkpoints are left, 3 have to be kept" in verdict.details[0]


def test_everything_is_kept_when_keep_last_n_is_zero() -> None:
    assert _judge("retention", correct(checkpoint=Checkpoint(keep_last_n=0))).state == "violated"


def test_removing_what_latest_names_is_lost_work() -> None:
    run = RunCase()
    run.save(2)
    run.save(4)
    run.prune(4)
    verdict = _judge("retention", _one_run(run, checkpoint=Checkpoint(keep_last_n=1)))
    assert "step_4 is gone, which `latest` named" in verdict.details[0]


def test_what_is_overwritten_is_not_called_gone() -> None:
    run = RunCase()
    run.save(2)
    run.put("step_2/metadata.json", b"{}")
    details = _judge("retention", _one_run(run, checkpoint=Checkpoint(keep_last_n=1))).details
    assert "step_2 is no longer whole (metadata.json is " in details[0]
    assert details[0].endswith("which `latest` named")


def test_a_save_that_takes_its_rename_back_has_committed_nothing() -> None:
    for settings in (Checkpoint(keep_last_n=2), Checkpoint(keep_last_n=0)):
        run = RunCase()
        run.save(2)
        run.begin(4)
        run.stage(4)
        run.commit(4)
        rename = next(one for one in reversed(run.operations) if one.kind == "rename")
        assert (rename.target, rename.save) == ("step_4", 2)
        run.do("rename", "step_4", rename.path)
        assert _judge("retention", _one_run(run, checkpoint=settings)).state == "holds"
        run.do("rename", rename.path, "step_4")
        run.do("rename", "step_4", ".trash-step_4")
        details = _judge("retention", _one_run(run, checkpoint=settings)).details
        assert "1 whole checkpoints are left, 2 have to be kept" in details[0]


@pytest.mark.parametrize(("described", "state"), [(False, "holds"), (True, "violated")])
def test_one_that_points_latest_back_first_takes_back_only_what_nobody_was_told_of(
    described: bool, state: str
) -> None:
    run = RunCase()
    run.save(2)
    run.save(4, described=described)
    rename = next(one for one in run.operations if one.target == "step_4")
    run.point(2)
    run.do("rename", "step_4", rename.path, save=1)
    assert _judge("retention", _one_run(run)).state == state


def test_a_checkpoint_that_latest_names_is_not_taken_back() -> None:
    run = RunCase()
    run.save(2)
    run.save(4)
    rename = next(one for one in run.operations if one.target == "step_4")
    run.do("rename", "step_4", rename.path)
    verdict = _judge("retention", _one_run(run, checkpoint=Checkpoint(keep_last_n=1)))
    assert "step_4 is gone, which `latest` named" in verdict.details[0]


def test_milestones_do_not_count_and_do_not_vanish() -> None:
    window = DynamicWindow(start=0, stop=2)
    kept = Checkpoint(keep_last_n=1, dyn_ckpt_window=window)
    run = RunCase()
    for step in (2, 4, 6):
        run.save(step, prune=4 if step == 6 else None)
    run.finish(6)
    assert _judge("retention", _one_run(run, checkpoint=kept)).state == "holds"
    run.prune(2)
    verdict = _judge("retention", _one_run(run, checkpoint=kept))
    assert "step_2 is gone, which is a milestone" in verdict.details[0]


def test_newer_checkpoints_from_before_a_rollback_do_not_count() -> None:
    first = RunCase()
    for step in (2, 4, 6):
        first.save(step)
    first.finish(6)
    second = resumed_run()
    second.load_step = 2
    second.operations = []
    second.save(3, prune=2)
    second.finish(3)
    kept = Checkpoint(keep_last_n=1)
    assert _judge("retention", Case(runs=[first, second], checkpoint=kept)).state == "holds"


def _rolled_back(*, prunes: tuple[int, ...], own: int = 8) -> Case:
    """Steps 2, 4 and 6 are there; the next run goes on from step 4 and saves another one."""
    first = RunCase()
    for step in (2, 4, 6):
        first.save(step)
    first.finish(6)
    second = RunCase(load_step=4)
    second.start(4)
    second.save(own)
    for step in prunes:
        second.prune(step)
    second.finish(own)
    return Case(runs=[first, second], checkpoint=Checkpoint(keep_last_n=3))


def test_an_abandoned_branch_may_go() -> None:
    assert _judge("retention", _rolled_back(prunes=(6,))).state == "holds"


def test_an_abandoned_branch_does_not_count_in_place_of_the_lineage() -> None:
    verdict = _judge("retention", _rolled_back(prunes=(2,)))
    assert verdict.outcome is Outcome.LOST_WORK
    assert "2 whole checkpoints are left, 3 have to be kept" in verdict.details[0]


def test_a_milestone_of_an_abandoned_branch_may_go() -> None:
    case = _rolled_back(prunes=(6,))
    window = DynamicWindow(start=6, stop=6)
    case.checkpoint = Checkpoint(keep_last_n=3, dyn_ckpt_window=window)
    assert _judge("retention", case).state == "holds"


def test_a_branch_is_taken_up_again_by_a_run_that_resumes_from_it() -> None:
    first, second, third = RunCase(), RunCase(load_step=2), RunCase()
    for step in (2, 4, 6):
        first.save(step)
    second.start(2)
    second.kill()
    third.start(6)
    third.save(8, prune=2)
    case = Case(runs=[first, second, third], checkpoint=Checkpoint(keep_last_n=3))
    assert _judge("retention", case).state == "holds"
    third.prune(6)
    verdict = _judge("retention", case)
    assert "2 whole checkpoints are left, 3 have to be kept" in verdict.details[0]
