"""An operator's acts between runs do not accuse the checkpointer; what came of them does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.evidence.record import Refused, keep_word
from harness.judge.history import replay
from harness.judge.judge import judge
from harness.judge.lineage import saved_words
from harness.judge.outcome import Outcome
from harness.judge.properties import JUDGES
from harness.judge.verdict import Verdict
from harness.scenario.schema import Checkpoint, Expect, Freeze, FreezePlan, Run
from tests.harness.judge.cases import RANKS, Case, RunCase, resumed


def before(run: RunCase, operator: RunCase, **action: Any) -> None:
    """An operator acts before a run."""
    parsed = Run.model_validate({"until_step": 2, "before": (action,)}).before[0]
    run.before.append((parsed, operator))


def first_run() -> RunCase:
    """Saves steps 2 and 4 and ends in order."""
    run = RunCase(until_step=4)
    run.start()
    run.train(1, 2)
    run.save(2)
    run.train(3, 4)
    run.save(4)
    run.finish(4)
    return run


def second_run(step: int, *, until: int = 6) -> RunCase:
    """Resumes from a step and saves every second one."""
    run = RunCase(until_step=until)
    run.start(step)
    for last in range(step + 2, until + 1, 2):
        run.train(last - 1, last)
        if last == 4:
            run.begin(4)
            run.stage(4)
            run.do("exchange", ".staging-step_4", "step_4", phase="publish")
            run.do("fsync", ".", phase="publish")
            run.point(4)
            remove_staging(run)
        else:
            run.save(last, prune=last - 4)
    run.finish(until)
    return run


def remove_staging(run: RunCase) -> None:
    """What the exchange set aside, as far as it is there."""
    for name in ("__1_0.distcp", ".metadata", "train_state.pt", "metadata.json", "__0_0.distcp"):
        run.do("unlink", f".staging-step_4/{name}", phase="prune")
    run.do("rmdir", ".staging-step_4", phase="prune")


def flip(path: str = "step_4/__0_0.distcp") -> RunCase:
    """An operator overwrites the first byte of a file."""
    operator = RunCase()
    operator.do("open", path)
    operator.written += b"?"
    operator.do("write", path, offset=0, size=1, data=0)
    operator.do("fsync", path)
    return operator


def damaged(resumes_from: int = 2) -> Case:
    """A byte of step 4 is changed; the second run resumes from a step."""
    second = second_run(resumes_from)
    before(second, flip(), flip_bit={"path": "step_4/*.distcp"})
    return Case(runs=[first_run(), second])


def ask(name: str, case: Case) -> Verdict:
    """The answer of one judge."""
    return JUDGES[name](case.evidence(), case.history())


def outcome(case: Case) -> tuple[Outcome, dict[str, tuple[str, ...]]]:
    """The word for a case, with everything that speaks against it."""
    found = judge(case.evidence())
    described = {one.property: one.details for one in found.verdicts if one.is_red()}
    described |= {one.name: one.details for one in found.guards if not one.passed}
    return found.outcome, described


def test_a_correct_fallback_to_the_undamaged_checkpoint_passes() -> None:
    assert outcome(damaged()) == (Outcome.PASS, {})


def test_resuming_from_a_damaged_checkpoint_is_a_violation_that_names_the_file() -> None:
    verdict = ask("integrity", damaged(resumes_from=4))
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.SILENT_DIVERGENCE)
    assert verdict.details == (
        "run 1: ranks 0, 1 resumed from step_4, in which step_4/__0_0.distcp had been changed or"
        " removed",
    )


def test_falling_back_further_than_needed_is_lost_work() -> None:
    case = damaged()
    case.checkpoint = Checkpoint(keep_last_n=3)
    case.runs[1].event_logs = [[resumed(rank, None)] for rank in RANKS]
    verdict = ask("nothing_lost", case)
    assert verdict.details == (
        "run 1 resumed from a fresh start, although step 2 had been acknowledged",
    )


@pytest.mark.parametrize(
    ("message", "state"), [("step_4 is damaged", "holds"), ("a checkpoint is damaged", "violated")]
)
def test_an_error_has_to_name_the_damage(message: str, state: str) -> None:
    case = damaged()
    case.runs[1].event_logs = [[] for _ in RANKS]
    case.runs[1].fail("load")
    for event_log in case.runs[1].event_logs:
        event_log[0] = dataclasses.replace(event_log[0], message=message)  # type: ignore[call-arg]
    assert ask("integrity", case).state == state


@pytest.mark.parametrize(
    ("own_freeze", "state"),
    [(FreezePlan(base=(Freeze(module="adapter"),)), "holds"), (None, "violated")],
)
def test_a_start_that_is_refused_for_its_settings_need_not_name_the_damage(
    own_freeze: FreezePlan | None, state: str
) -> None:
    case = damaged()
    second = case.runs[1]
    second.refused, second.own_freeze = "freeze settings", own_freeze
    second.event_logs = [[] for _ in RANKS]
    second.fail("load", message="the freeze settings are others")
    assert ask("integrity", case).state == state


def test_integrity_and_hostile_pickles_do_not_apply_where_nothing_happened() -> None:
    case = Case(runs=[first_run(), second_run(4)])
    assert not ask("integrity", case).applies()
    assert not ask("no_code_on_load", case).applies()


def test_integrity_is_unknown_when_no_rank_decided_or_raised() -> None:
    case = damaged()
    case.runs[1].event_logs = [[] for _ in RANKS]
    assert ask("integrity", case).state == "unknown"


def test_the_mark_of_a_hostile_pickle_is_a_violation() -> None:
    second = second_run(2)
    before(second, flip("step_4/.metadata"), hostile={"path": "step_4/.metadata"})
    case = Case(runs=[first_run(), second])
    assert ask("no_code_on_load", case).state == "holds"
    case.executed = ("0-hostile",)
    verdict = ask("no_code_on_load", case)
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.HARD_FAIL)


def test_damage_by_an_operator_is_excused_until_the_checkpointer_makes_its_own() -> None:
    operator = RunCase()
    operator.do("unlink", "step_4/.metadata")
    operator.do("fsync", "step_4")
    second = second_run(2, until=2)
    before(second, operator, delete={"path": "step_4/.metadata"})
    case = Case(runs=[first_run(), second])
    assert outcome(case) == (Outcome.PASS, {})
    second.do("unlink", "step_2/.metadata", phase="prune")
    assert ask("whole_or_absent", case).details == (
        "run 1, after operation 0: step_2 carries a checkpoint's name, but .metadata is missing",
    )


def test_a_dangling_latest_is_excused_as_long_as_it_stays_and_not_when_it_comes_back() -> None:
    operator = RunCase()
    operator.do("unlink", "latest")
    operator.do("symlink", "latest", "step_5")
    operator.do("fsync", ".")
    second = second_run(4)
    before(second, operator, latest={"becomes": "dangling"})
    case = Case(runs=[first_run(), second])
    assert outcome(case) == (Outcome.PASS, {})
    second.point(5)
    assert "`latest` names step_5, which does not exist" in ask("latest_durable", case).details[0]


def foreign_case() -> Case:
    """Somebody puts a file beside the checkpoints."""
    operator = RunCase()
    operator.put("notes.txt", b"mine")
    operator.do("fsync", ".")
    second = second_run(4)
    before(second, operator, foreign={"path": "notes.txt", "kind": "file"})
    return Case(runs=[first_run(), second])


def test_a_foreign_name_is_no_leftover_but_has_to_stay() -> None:
    case = foreign_case()
    assert outcome(case) == (Outcome.PASS, {})
    case.runs[1].do("unlink", "notes.txt", phase="prune")
    verdict = ask("retention", case)
    assert (verdict.state, verdict.outcome) == ("violated", Outcome.LOST_WORK)
    assert verdict.details == ("run 1: notes.txt, which is not the checkpointer's, is gone",)


def test_a_leftover_that_an_operator_planted_has_to_go() -> None:
    operator = RunCase()
    operator.do("mkdir", ".staging-step_8")
    operator.do("fsync", ".")
    second = second_run(4)
    before(second, operator, leftover={"kind": "staging"})
    case = Case(runs=[first_run(), second])
    assert ask("clean", case).details == (".staging-step_8 is left in the checkpoint directory",)


def test_a_checkpoint_that_an_operator_deleted_was_not_lost_by_the_checkpointer() -> None:
    operator = RunCase()
    for name in ("__0_0.distcp", "__1_0.distcp", ".metadata", "train_state.pt", "metadata.json"):
        operator.do("unlink", f"step_4/{name}")
    operator.do("rmdir", "step_4")
    operator.do("fsync", ".")
    second = RunCase(until_step=4)
    before(second, operator, delete={"path": "step_4"})
    second.start(2)
    second.train(3, 4)
    second.save(4)
    second.finish(4)
    assert outcome(Case(runs=[first_run(), second])) == (Outcome.PASS, {})


def test_an_older_step_that_latest_was_pointed_at_is_the_one_to_resume_from() -> None:
    operator = RunCase()
    operator.do("unlink", "latest")
    operator.do("symlink", "latest", "step_2")
    operator.do("fsync", ".")
    second = second_run(2)
    before(second, operator, latest={"step": 2})
    case = Case(runs=[first_run(), second])
    case.expect = Expect(resumed_from_step=2)
    assert outcome(case) == (Outcome.PASS, {})


def test_a_action_that_was_not_done_is_invalid() -> None:
    case = damaged()
    evidence = case.evidence()
    missed = dataclasses.replace(evidence.at_rest[1].done[0], problem="nothing matches the pattern")
    at_rest = {1: dataclasses.replace(evidence.at_rest[1], done=(missed,))}
    for broken in (
        dataclasses.replace(evidence, at_rest=at_rest, runs=evidence.runs[:1]),
        dataclasses.replace(evidence, at_rest={}),
    ):
        assert judge(broken).outcome is Outcome.INVALID
        failed = [one.name for one in judge(broken).guards if not one.passed]
        assert "actions_done" in failed


def refused_case() -> Case:
    """The second run has to be refused, and is; the third one resumes."""
    second = RunCase(refused="CheckpointError: step_2")
    second.record(Refused(changed=()))
    second.fail("load")
    return Case(runs=[first_run(), second, second_run(4)])


def test_a_start_that_is_refused_as_it_should_be_passes() -> None:
    assert outcome(refused_case()) == (Outcome.PASS, {})


def test_a_start_that_is_not_refused_is_red() -> None:
    case = Case(runs=[first_run(), second_run(4)])
    case.runs[1].refused = "FreezeMismatch"
    found, described = outcome(case)
    assert (found, set(described)) == (Outcome.SILENT_DIVERGENCE, {"refused"})
    assert described["refused"] == tuple(
        f"run 1, rank {rank} resumed from step 4" for rank in (0, 1)
    )


def test_a_refusal_with_another_error_or_of_one_rank_alone_is_red() -> None:
    case = refused_case()
    case.runs[1].refused = "FreezeMismatch"
    assert outcome(case)[0] is Outcome.HARD_FAIL
    case = refused_case()
    case.runs[1].event_logs[1] = []
    assert outcome(case)[1]["refused_alike"][0].startswith("run 1: the ranks raised different")


def test_a_refusal_that_comes_too_late_is_red() -> None:
    case = refused_case()
    case.runs[1].event_logs[1][0] = Refused(changed=("transformer.weight",))
    assert outcome(case)[1] == {
        "refused": ("run 1, rank 1 raised, but had changed transformer.weight",)
    }
    case = refused_case()
    case.runs[1].point(2)
    assert outcome(case)[1]["refused"] == (
        "run 1 did not resume, but changed the directory: `latest` is step_2, not step_4",
    )


def test_a_save_of_a_branch_that_an_operator_abandoned_is_not_one_to_resume_from() -> None:
    back, again, third = RunCase(), second_run(2), RunCase(until_step=6)
    back.point(2)
    before(again, back, latest={"step": 2})
    third.start(4)
    found = Case(runs=[first_run(), again, third]).evidence()
    assert saved_words(found, 1, 2) == {keep_word(2, 0)}
    assert saved_words(found, 2, 4) == {keep_word(4, 1)}
    assert saved_words(found, 2, 2) == {keep_word(2, 0)}
    details = JUDGES["resume_exact"](found, replay(found)).details
    assert "came back as 'kept with step 4 of run 0', not 'kept with step 4 of run 1'" in details[0]


def test_until_the_new_branch_has_a_save_either_may_be_resumed_from() -> None:
    back, again, third = RunCase(), RunCase(), RunCase()
    back.point(2)
    before(again, back, latest={"step": 2})
    again.start(2)
    again.begin(4)
    again.kill()
    third.start(4)
    found = Case(runs=[first_run(), again, third]).evidence()
    assert saved_words(found, 2, 4) == {keep_word(4, 0), keep_word(4, 1)}


def test_checkpoints_of_a_branch_that_is_taken_up_again_count_again() -> None:
    back, again = RunCase(), RunCase()
    back.point(2)
    before(again, back, latest={"step": 2})
    again.start(2)
    again.kill()
    found = Case(runs=[first_run(), again, second_run(4)]).evidence()
    assert JUDGES["retention"](found, replay(found)).state == "holds"
