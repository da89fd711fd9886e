"""Survivors of a dead rank, what checkpoints say of tokens, and what load and faults excuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.evidence.operation import Fired
from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES
from harness.judge.verdict import Verdict
from harness.scenario.launcher import LauncherSettings
from harness.scenario.schema import Checkpoint
from tests.harness.judge.cases import Case, RunCase, checkpoint_files, correct


def _judge(name: str, case: Case) -> Verdict:
    return JUDGES[name](case.evidence(), case.history())


def _one_run(run: RunCase, *, checkpoint: Checkpoint | None = None) -> Case:
    return Case(runs=[run], checkpoint=checkpoint or Checkpoint())


def test_a_save_after_a_fault_may_wait() -> None:
    run = RunCase()
    run.begin(2)
    run.stage(2)
    run.fired.append(Fired(strike="run0.hang", index=1, time_s=0.0, ranks=(1,)))
    run.now_s += 8.0
    run.begin(4)
    run.saves = 1
    run.commit(2)
    case = _one_run(run, checkpoint=Checkpoint(async_mode="async"))
    assert _judge("nothing_lost", case).state == "holds"


def _survivor(*, in_save: bool, timeout_s: float | None = 4.0) -> Case:
    case = correct(checkpoint=Checkpoint(timeout_s=timeout_s))
    run = case.runs[0]
    run.exits, run.stopped = (-9, -9), (1,)
    if not in_save:
        run.fail("save", ranks=(1,))
    return case


@pytest.mark.parametrize(
    ("in_save", "timeout_s", "state"),
    [(True, 4.0, "violated"), (False, 4.0, "holds"), (True, None, "holds")],
)
def test_a_survivor_that_waits_in_a_save_past_the_deadline_of_its_manager_is_a_hang(
    *, in_save: bool, timeout_s: float | None, state: str
) -> None:
    verdict = _judge("bounded", _survivor(in_save=in_save, timeout_s=timeout_s))
    assert verdict.state == state
    if state == "violated":
        assert verdict.outcome is Outcome.HANG
        assert verdict.details == (
            "run 0: rank 1 still waited in save 2 when the deadline of its manager was over",
        )


def test_a_survivor_that_torchrun_ends_at_once_is_no_hang() -> None:
    case = _survivor(in_save=True)
    found = case.evidence()
    plan = found.plan.model_copy(update={"launcher": LauncherSettings(kind="torchrun")})
    verdict = JUDGES["bounded"](replace(found, plan=plan), case.history())
    assert verdict.state == "holds"


def test_a_checkpoint_that_misstates_its_tokens_differs_from_its_run() -> None:
    run = RunCase()
    run.start()
    run.train(1, 2)
    run.begin(2)
    files = checkpoint_files(2)
    run.fill(".staging", {**files, "metadata.json": b'{"step": 2, "tokens_seen": 8}'})
    run.do("rename", ".staging", "step_2")
    run.do("fsync", ".")
    verdict = _judge("resume_exact", _one_run(run))
    assert verdict.details == ("run 0: step_2 says 8 tokens seen, its run had seen 16",)
    assert verdict.operations == ((0, len(run.operations) - 2),)


def test_a_description_without_a_number_of_tokens_is_not_accused() -> None:
    run = RunCase()
    run.start()
    run.train(1, 2)
    run.begin(2)
    files = checkpoint_files(2)
    run.fill(".staging", {**files, "metadata.json": b'{"step": 2}'})
    run.do("rename", ".staging", "step_2")
    run.do("fsync", ".")
    assert _judge("resume_exact", _one_run(run)).state == "holds"
