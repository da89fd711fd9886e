"""`latest_durable`: what `latest` may lead to, at every instant."""

from __future__ import annotations

import pytest

from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES
from harness.judge.verdict import Verdict
from tests.harness.judge.cases import Case, RunCase, checkpoint_files


def _judge(run: RunCase) -> Verdict:
    case = Case(runs=[run])
    return JUDGES["latest_durable"](case.evidence(), case.history())


def _published(**more: bool) -> RunCase:
    run = RunCase()
    run.fill(".staging-step_2", checkpoint_files(2), **more)
    return run


def test_latest_that_is_swapped_before_the_checkpoint_has_its_name_is_a_violation() -> None:
    run = _published()
    run.point(2)
    run.commit(2)
    verdict = _judge(run)
    assert verdict.state == "violated"
    assert "step_2, which does not exist" in verdict.details[0]
    assert verdict.outcome is Outcome.HARD_FAIL


def test_latest_that_names_files_never_synced_is_a_violation_after_a_power_cut() -> None:
    run = _published(sync=False)
    run.commit(2)
    run.point(2)
    verdict = _judge(run)
    assert verdict.state == "violated"
    assert "power cut" in verdict.details[0]


def test_latest_that_names_a_directory_whose_names_were_never_synced_is_a_violation() -> None:
    run = RunCase()
    run.do("mkdir", ".staging-step_2")
    for name, data in checkpoint_files(2).items():
        run.put(f".staging-step_2/{name}", data)
    run.commit(2)
    run.point(2)
    assert _judge(run).state == "violated"


@pytest.mark.parametrize("text", ["/runs/checkpoints/step_2", "latest", "elsewhere"])
def test_latest_that_leads_astray_is_a_violation(text: str) -> None:
    run = _published()
    run.commit(2)
    run.do("symlink", "latest", text)
    assert _judge(run).state == "violated"


def _latest_names(run: RunCase, name: str) -> str:
    run.do("symlink", ".latest-new", name)
    run.do("rename", ".latest-new", "latest")
    run.do("fsync", ".")
    return _judge(run).state


def test_latest_may_name_a_whole_checkpoint_that_does_not_have_its_own_name_yet() -> None:
    assert _latest_names(_published(), ".staging-step_2") == "holds"


def test_latest_may_not_name_a_directory_that_is_no_whole_checkpoint() -> None:
    assert _latest_names(_published(sync=False), ".staging-step_2") == "violated"
    run = RunCase()
    run.fill(".staging-step_2", {"train_state.pt": checkpoint_files(2)["train_state.pt"]})
    assert _latest_names(run, ".staging-step_2") == "violated"


def test_latest_of_a_stage_that_is_not_written_yet_is_a_violation() -> None:
    run = RunCase()
    files = checkpoint_files(2)
    del files[".metadata"]
    run.fill("step_2", files)
    run.point(2)
    assert _judge(run).operations == ((0, len(run.operations) - 2),)
