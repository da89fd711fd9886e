"""Each property holds for correct evidence and is violated, or unknown, where evidence says so."""

from __future__ import annotations

import dataclasses

import pytest

from harness.evidence.evidence import DirectoryEntry
from harness.evidence.record import Drained, Record, Resumed, SaveBegan, SaveReturned, Stepped
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES
from harness.judge.verdict import Verdict
from harness.scenario.schema import (
    Checkpoint,
    Expect,
    Freeze,
    FreezePlan,
    ScheduledFreeze,
)
from tests.harness.judge.cases import (
    RANKS,
    Case,
    RunCase,
    checkpoint_files,
    correct,
    resumed,
    stepped,
)

FREEZE = FreezePlan(
    base=(Freeze(module="vision_encoder"),),
    schedule=(
        ScheduledFreeze(start_step=5, specs=(Freeze(module="vision_encoder", frozen=False),)),
    ),
)


def _judge(name: str, case: Case) -> Verdict:
    return JUDGES[name](case.evidence(), case.history())


def _one_run(run: RunCase, **more: object) -> Case:
    return Case(runs=[run], **more)  # type: ignore[arg-type]


def _replace(case: Case, run: int, rank: int, step: int, **changes: object) -> None:
    """Change what a rank wrote down after a step."""
    event_log = case.runs[run].event_logs[rank]
    for place, record in enumerate(event_log):
        if isinstance(record, Stepped) and record.step == step:
            event_log[place] = dataclasses.replace(record, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(JUDGES))
def test_every_property_holds_for_a_correct_job_that_was_killed_and_resumed(name: str) -> None:
    verdict = _judge(name, correct(freeze=FREEZE))
    # Nothing happens to this job between its runs.
    idle = name in ("integrity", "no_code_on_load")
    assert verdict.state == ("does_not_apply" if idle else "holds"), verdict.details
    assert verdict.outcome is Outcome.PASS


@pytest.mark.parametrize("name", ["latest_durable", "whole_or_absent", "retention"])
def test_what_the_tree_shows_is_unknown_when_the_trace_does_not_explain_the_disk(name: str) -> None:
    case = correct()
    case.runs[1].after = {"step_2": DirectoryEntry(kind="directory", detail="")}
    assert _judge(name, case).state == "unknown"


# whole_or_absent


def test_a_checkpoint_that_is_filled_under_its_own_name_is_a_violation() -> None:
    run = RunCase()
    run.fill("step_2", checkpoint_files(2))
    verdict = _judge("whole_or_absent", _one_run(run))
    assert verdict.state == "violated"
    assert verdict.operations[0] == (0, 0)


def test_a_checkpoint_that_is_removed_under_its_own_name_is_a_violation() -> None:
    run = RunCase()
    run.save(2)
    run.do("unlink", "step_2/__1_0.distcp")
    verdict = _judge("whole_or_absent", _one_run(run))
    assert verdict.details[0].endswith("name, but __1_0.distcp is missing")


def test_a_directory_that_is_torn_again_is_reported_again() -> None:
    run = RunCase()
    run.fill("step_2", checkpoint_files(2))
    made = len(run.operations)
    run.do("unlink", "step_2/__1_0.distcp")
    run.do("unlink", "step_2/__0_0.distcp")
    verdict = _judge("whole_or_absent", _one_run(run))
    torn = [place for _, place in verdict.operations]
    assert [place for place in torn if place >= made] == [made]
    assert verdict.details[-1].endswith("name, but __1_0.distcp is missing")


def test_bytes_that_change_inside_a_whole_checkpoint_are_a_violation() -> None:
    run = RunCase()
    run.save(2)
    run.put("step_2/metadata.json", checkpoint_files(2)["metadata.json"] + b" ")
    verdict = _judge("whole_or_absent", _one_run(run))
    assert verdict.state == "violated"


def test_a_checkpoint_that_is_exchanged_for_another_of_its_step_holds() -> None:
    run = RunCase()
    run.save(2)
    run.stage(2)
    run.do("exchange", ".staging-step_2", "step_2")
    run.do("fsync", ".")
    for name in checkpoint_files(2):
        run.do("unlink", f".staging-step_2/{name}")
    run.do("rmdir", ".staging-step_2")
    for name in ("whole_or_absent", "latest_durable", "retention"):
        assert _judge(name, _one_run(run)).state == "holds"


# nothing_lost


def _resumed_from(step: int | None, expected: object = None) -> Case:
    case = correct()
    case.expect = Expect(resumed_from_step=expected)  # type: ignore[arg-type]
    case.runs[1].event_logs = [[], []]
    case.runs[1].start(step)
    return case


def test_a_fresh_start_beside_a_checkpoint_is_lost_work() -> None:
    verdict = _judge("nothing_lost", _resumed_from(None))
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.LOST_WORK)


@pytest.mark.parametrize(("step", "word"), [(0, "older"), (4, "newer")])
def test_a_resume_from_another_step_than_expected_is_a_violation(step: int, word: str) -> None:
    verdict = _judge("nothing_lost", _resumed_from(step, 2))
    assert verdict.state == "violated"
    assert f"{word} than the expected step 2" in verdict.details[-1]


@pytest.mark.parametrize(("step", "outcome"), [(0, "LOST_WORK"), (4, "SILENT_DIVERGENCE")])
def test_a_resume_from_a_newer_step_than_expected_loses_no_work(step: int, outcome: str) -> None:
    case = _resumed_from(step, 2)
    case.runs[0].event_logs = [[], []]  # nothing was acknowledged
    assert _judge("nothing_lost", case).outcome == outcome


def test_a_resume_from_the_expected_step_holds() -> None:
    assert _judge("nothing_lost", _resumed_from(2, (2,))).state == "holds"


def test_a_fresh_start_that_was_expected_holds() -> None:
    case = _resumed_from(None, (None,))
    case.runs[0] = RunCase()
    case.runs[0].start()
    case.runs[0].kill()
    assert _judge("nothing_lost", case).state == "holds"


def test_a_resume_that_raised_is_a_hard_failure_and_one_without_a_word_is_unknown() -> None:
    case = correct()
    case.runs[1].event_logs = [[], []]
    assert _judge("nothing_lost", case).state == "unknown"
    case.runs[1].fail("load")
    verdict = _judge("nothing_lost", case)
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.HARD_FAIL)


def test_a_start_that_raises_where_nothing_was_saved_has_lost_nothing() -> None:
    first, second = RunCase(), RunCase()
    first.fail("build")
    second.fail("build")
    case = Case(runs=[first, second])
    assert _judge("nothing_lost", case).state == "holds"
    assert judge(case.evidence()).outcome is Outcome.HARD_FAIL


def _returns_early(rank: int, *, background: bool) -> Case:
    """A save that is whole in the end; one rank is told before it is."""
    run = RunCase()
    run.begin(2)
    run.stage(2)
    place = len(run.operations)
    run.commit(2)
    run.point(2)
    done = len(run.operations)
    for one in RANKS:
        index = place if one == rank else done
        said: Record = SaveReturned(step=2, ordinal=1, index=index)
        if background:
            said = Drained(call="wait", index=index)
        run.record(said, [one])
    settings = Checkpoint(async_mode="async") if background else Checkpoint()
    return _one_run(run, checkpoint=settings)


@pytest.mark.parametrize("background", [False, True])
def test_no_rank_is_told_of_a_save_before_it_is_whole(background: bool) -> None:
    verdict = _judge("nothing_lost", _returns_early(1, background=background))
    assert "step 2 was acknowledged to rank 1, and a power cut" in verdict.details[0]
    assert _judge("nothing_lost", _returns_early(2, background=background)).state == "holds"


def test_what_one_rank_alone_was_told_counts_at_the_next_start() -> None:
    case = _resumed_from(None)
    returned = [one for one in case.runs[0].event_logs[0] if not isinstance(one, SaveReturned)]
    case.runs[0].event_logs[0] = returned
    details = _judge("nothing_lost", case).details
    assert "resumed from a fresh start, although step 2 had been acknowledged" in details[0]


def test_survivors_may_raise_when_a_rank_was_killed_before_the_decision() -> None:
    case = correct()
    case.runs[1].event_logs = [[], []]
    case.runs[1].fail("load")
    case.runs[1].kill(ranks=(1,))
    assert _judge("nothing_lost", case).state == "holds"


def test_what_was_drained_in_the_background_counts_as_told() -> None:
    case = _resumed_from(2)
    case.checkpoint = Checkpoint(async_mode="async")
    assert _judge("nothing_lost", case).state == "holds"
    for event_log in case.runs[0].event_logs:
        event_log += [SaveBegan(step=3, ordinal=9), Drained(call="wait")]
    assert _judge("nothing_lost", case).state == "violated"


def test_a_run_that_loads_a_step_by_name_starts_a_lineage() -> None:
    case = correct()
    case.runs[1].load_step = 2
    for event_log in case.runs[0].event_logs:
        event_log.append(SaveReturned(step=4, ordinal=2))
    assert _judge("nothing_lost", case).state == "holds"


@pytest.mark.parametrize(
    ("wait_s", "loaded_s", "state"),
    [(0.5, 0.0, "holds"), (3.0, 0.0, "violated"), (3.0, 1.0, "holds"), (5.0, 1.0, "violated")],
)
def test_a_flushed_save_that_waits_for_the_next_one_is_late_unless_the_machine_was_loaded(
    wait_s: float, loaded_s: float, state: str
) -> None:
    run = RunCase(waited_s=loaded_s)
    run.begin(2)
    run.stage(2)
    run.now_s += wait_s
    run.begin(4)
    run.saves = 1
    run.commit(2)
    run.point(2)
    case = _one_run(run, checkpoint=Checkpoint(async_mode="async"))
    assert _judge("nothing_lost", case).state == state


def test_one_run_in_synchronous_mode_has_nothing_to_lose() -> None:
    assert not _judge("nothing_lost", _one_run(RunCase())).applies()


# agreement


def test_ranks_that_resume_from_different_steps_are_a_violation() -> None:
    case = correct()
    case.runs[1].event_logs[1][0] = resumed(1, None)
    verdict = _judge("agreement", case)
    assert verdict.details == (
        "run 1: the ranks resumed differently: rank 0: step 2 from step_2; "
        "rank 1: a fresh start from nowhere",
    )


def test_a_rank_that_raises_while_others_go_on_is_a_violation() -> None:
    case = correct()
    case.runs[1].event_logs[1] = []
    case.runs[1].fail("load", ranks=(1,))
    assert _judge("agreement", case).state == "violated"


def test_ranks_that_all_raise_agree() -> None:
    case = correct()
    case.runs[1].event_logs = [[], []]
    case.runs[1].fail("load")
    assert _judge("agreement", case).state == "holds"


def test_ranks_that_save_different_steps_are_a_violation() -> None:
    case = correct()
    case.runs[1].record(SaveBegan(step=8, ordinal=3), ranks=(0,))
    case.runs[1].record(SaveBegan(step=7, ordinal=3), ranks=(1,))
    assert _judge("agreement", case).state == "violated"


def test_agreement_is_unknown_when_no_rank_got_as_far() -> None:
    assert _judge("agreement", _one_run(RunCase())).state == "unknown"


# resume_exact


def test_a_random_stream_that_differs_after_the_resume_is_named() -> None:
    case = correct()
    wrong = resumed(1, 2)
    wrong.state.rng["torch"] = "another stream"
    case.runs[1].event_logs[1][0] = wrong
    verdict = _judge("resume_exact", case)
    assert verdict.details == ("run 1, rank 1, resumed at step 2: random stream torch differs",)
    assert verdict.outcome is Outcome.SILENT_DIVERGENCE


def test_a_missing_moment_is_a_difference() -> None:
    case = correct()
    wrong = stepped(0, 3)
    del wrong.state.moments["adapter.weight.exp_avg"]
    _replace(case, 1, 0, 3, state=wrong.state)
    assert "moment adapter.weight.exp_avg is missing" in _judge("resume_exact", case).details[0]


def test_another_setting_of_a_parameter_group_is_a_difference() -> None:
    case = correct()
    wrong = stepped(0, 3)
    wrong.state.groups["0.weight_decay"] = "0.01"
    _replace(case, 1, 0, 3, state=wrong.state)
    detail = _judge("resume_exact", case).details[0]
    assert "optimizer setting 0.weight_decay is 0.01, not missing" in detail


def test_another_loss_and_learning_rate_are_told_as_numbers() -> None:
    case = correct()
    _replace(case, 1, 0, 5, loss=(1.5).hex(), lr=((0.25).hex(),))
    detail = _judge("resume_exact", case).details[0]
    assert detail.startswith("run 1, rank 0, step 5: loss is 1.5 (0x1.8")
    assert "learning rate is 0.25" in detail


def test_a_save_that_disturbs_training_in_the_first_run_is_a_violation() -> None:
    case = correct()
    _replace(case, 0, 1, 3, loss=(0.0).hex())
    assert _judge("resume_exact", case).details[0].startswith("run 0, rank 1, step 3")


def test_what_was_saved_before_the_first_step_is_what_the_uninterrupted_run_began_with() -> None:
    run = RunCase(until_step=2)
    run.start(0)
    run.train(1, 2)
    assert _judge("resume_exact", _one_run(run)).state == "holds"
    wrong = resumed(1, 0)
    wrong.state.rng["torch"] = "another stream"
    run.event_logs[1][0] = wrong
    described = "run 0, rank 1, resumed at step 0: random stream torch differs"
    assert _judge("resume_exact", _one_run(run)).details == (described,)


def test_resume_exact_is_unknown_when_no_step_was_trained() -> None:
    assert _judge("resume_exact", _one_run(RunCase())).state == "unknown"


# samples_exactly_once


def test_samples_that_are_seen_again_after_the_resume_are_a_violation() -> None:
    case = correct()
    _replace(case, 1, 0, 3, samples=stepped(0, 2).samples)
    verdict = _judge("samples_exactly_once", case)
    assert verdict.details[0] == "rank 0, step 3: saw samples [4, 5], not [8, 9]"
    assert "sample 4 is seen twice in epoch 0, at step 3" in verdict.details[1]


def test_a_step_that_no_run_has_trained_is_a_violation() -> None:
    case = correct()
    case.runs[1].event_logs = [[], []]
    case.runs[1].start(2)
    case.runs[1].train(4, 6)
    assert "step 3: its samples were skipped" in _judge("samples_exactly_once", case).details[0]


def test_samples_are_unknown_when_none_was_seen_or_the_reference_repeats_itself() -> None:
    assert _judge("samples_exactly_once", _one_run(RunCase())).state == "unknown"
    case = correct()
    for event_log in (
        *case.reference,
        *(event_log for run in case.runs for event_log in run.event_logs),
    ):
        for place, record in enumerate(event_log):
            if isinstance(record, Stepped):
                event_log[place] = dataclasses.replace(record, epoch=0)
    assert _judge("samples_exactly_once", case).state == "unknown"


# freeze_consistent


def test_freezing_does_not_apply_without_settings() -> None:
    assert not _judge("freeze_consistent", correct()).applies()


def test_metadata_of_the_wrong_side_of_a_transition_is_a_violation() -> None:
    run = RunCase(freeze=FREEZE)
    run.start()
    run.train(1, 4)
    wrong = [{"module": "vision_encoder", "frozen": False}]
    run.fill(".staging-step_4", checkpoint_files(4, freeze=wrong))
    run.commit(4)
    verdict = _judge("freeze_consistent", _one_run(run, freeze=FREEZE))
    assert verdict.state == "violated"
    assert verdict.operations


def test_a_frozen_module_that_moves_and_a_free_one_that_stands_are_violations() -> None:
    case = correct(freeze=FREEZE)
    wrong = stepped(0, 4, FREEZE)
    wrong.state.params["vision_encoder.weight"] = "moved"
    _replace(case, 1, 0, 4, state=wrong.state)
    assert "vision_encoder is frozen, but" in _judge("freeze_consistent", case).details[0]
    run = RunCase(freeze=FREEZE, until_step=8)
    run.start()
    run.train(1, 8)
    case = _one_run(run, freeze=FREEZE)
    for event_log in run.event_logs:
        for record in event_log:
            if isinstance(record, Stepped):
                record.state.params["vision_encoder.weight"] = "stands"
    verdict = _judge("freeze_consistent", case)
    assert verdict.details == (
        "run 0, vision_encoder is not frozen, but its parameters did not change on any rank",
    )


def test_a_rank_that_says_otherwise_than_the_settings_is_a_violation() -> None:
    case = correct(freeze=FREEZE)
    event_log = case.runs[1].event_logs[0]
    assert isinstance(event_log[0], Resumed)
    event_log[0] = dataclasses.replace(event_log[0], frozen=())
    verdict = _judge("freeze_consistent", case)
    assert "at its start: vision_encoder is not frozen" in verdict.details[0]


def test_freezing_is_unknown_when_nothing_was_seen() -> None:
    assert _judge("freeze_consistent", _one_run(RunCase(), freeze=FREEZE)).state == "unknown"
