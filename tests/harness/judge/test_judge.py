"""From evidence to the one word: guards, verdicts, and which outcome wins."""

from __future__ import annotations

import dataclasses

import pytest

from harness.evidence.evidence import DirectoryEntry, Evidence
from harness.evidence.operation import Fired
from harness.evidence.record import Stepped, Struck
from harness.judge.history import History
from harness.judge.judge import judge
from harness.judge.outcome import Outcome, worst
from harness.judge.properties import JUDGES
from harness.judge.verdict import Verdict
from harness.scenario.schema import Expect
from tests.harness.judge.cases import RANKS, Case, RunCase, correct, resumed
from tests.harness.strikes import strike


def _failed(case: Case) -> tuple[str, ...]:
    return tuple(one.name for one in judge(case.evidence()).guards if not one.passed)


def test_a_correct_job_passes() -> None:
    judgement = judge(correct().evidence())
    assert judgement.outcome is Outcome.PASS
    assert len(judgement.verdicts) == 13
    assert all(guard.passed for guard in judgement.guards)


def test_only_the_named_properties_are_judged() -> None:
    case = correct()
    case.runs[1].leaked = ("a process",)
    case.expect = Expect(properties=("bounded", "agreement"))
    judgement = judge(case.evidence())
    assert [one.property for one in judgement.verdicts] == ["agreement", "bounded"]
    assert judgement.outcome is Outcome.PASS


def test_a_strike_that_did_not_fire_is_invalid_and_named() -> None:
    case = correct()
    case.runs[0].kill(fires=False)
    judgement = judge(case.evidence())
    assert judgement.outcome is Outcome.INVALID
    assert judgement.guards[0].details == (
        "run 0: run0.kill-1 did not strike (at rank: 0, save: 2, phase: flush)",
    )


def test_a_job_that_breaks_by_itself_before_a_strike_is_a_finding() -> None:
    case = correct()
    case.runs[0] = RunCase()
    case.runs[0].start()
    case.runs[0].train(1, 2)
    case.runs[0].begin(2)
    case.runs[0].kill(fires=False)
    case.runs[0].fail("save", message="no such setting")
    evidence = case.evidence()
    judgement = judge(dataclasses.replace(evidence, runs=evidence.runs[:1]))
    failed = [one.name for one in judgement.guards if not one.passed]
    assert failed == ["strikes_fired", "undisturbed_runs_end"]
    assert judgement.outcome is Outcome.HARD_FAIL


@pytest.mark.parametrize(
    ("read", "described"),
    [
        ((), "opened nothing"),
        (
            (("open_read", "step_2/a", 1), ("read", "step_2/a", 1), ("read", "step_2/a", 1)),
            "opened step_2/a, read step_2/a",
        ),
        ((("open_read", "step_2/a", 0),), "opened nothing"),
        (tuple(("open_read", f"step_2/{one}", 1) for one in "abcdefgh"),
         "opened step_2/a, opened step_2/b, opened step_2/c, opened step_2/d, opened step_2/e, "
         "opened step_2/f and 2 more"),
    ],
)  # fmt: skip
def test_what_was_read_instead_is_told_of_a_strike_that_missed_a_load(
    read: tuple[tuple[str, str, int], ...], described: str
) -> None:
    case = Case(runs=[RunCase()])
    one = strike("fail", ranks=(1,), name="run0.fail", phase="load", path="nowhere")
    case.runs[0].strikes.append(one)
    for kind, path, rank in read:
        case.runs[0].do(kind, path, rank=rank, phase="load")
    assert judge(case.evidence()).guards[0].details == (
        "run 0: run0.fail did not strike (at rank: 1, phase: load, path: nowhere)",
        f"run 0: while it loaded rank 1 {described}",
    )


def test_a_trace_that_does_not_explain_the_disk_is_invalid() -> None:
    case = correct()
    case.runs[0].after = {"other": DirectoryEntry(kind="file", detail="00")}
    assert "trace_complete" in _failed(case)


def test_a_reference_without_gradients_samples_or_movement_is_invalid() -> None:
    case = correct()
    for event_log in case.reference:
        for place, record in enumerate(event_log):
            if isinstance(record, Stepped):
                state = resumed(0, None).state
                event_log[place] = dataclasses.replace(record, trained=0, samples=(), state=state)
        event_log[0] = resumed(0, None)
    judgement = judge(case.evidence())
    details = next(one for one in judgement.guards if one.name == "reference_trained").details
    assert "step 1: no parameter had a gradient on any rank" in details
    assert details[-2:] == ("no weight moved on any rank", "no sample was consumed")


def test_properties_that_all_do_not_apply_prove_nothing() -> None:
    case = Case(runs=[correct().runs[0]], expect=Expect(properties=("freeze_consistent",)))
    assert _failed(case) == ("something_judged",)


def test_a_run_that_nothing_struck_and_that_raised_is_a_hard_failure() -> None:
    case = correct()
    case.runs[1].event_logs = [[] for _ in RANKS]
    case.runs[1].fail("load")
    judgement = judge(case.evidence())
    assert judgement.outcome is Outcome.HARD_FAIL
    failed = next(one for one in judgement.guards if not one.passed)
    assert failed.details[0] == "run 1, rank 0, load: CheckpointError: step_2 is torn"


def test_survivors_of_a_kill_may_raise_but_not_vanish() -> None:
    case = correct()
    case.runs[0].fired[0] = dataclasses.replace(case.runs[0].fired[0], ranks=(0,))
    assert _failed(case) == ("ranks_accounted",)
    case.runs[0].fail("save", ranks=(1,))
    assert _failed(case) == ()


def test_a_judge_that_throws_answers_unknown_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def throw(_evidence: Evidence, _history: History) -> Verdict:
        raise ZeroDivisionError("broken")

    monkeypatch.setitem(JUDGES, "bounded", throw)
    judgement = judge(correct().evidence())
    assert judgement.outcome is Outcome.INVALID
    unknown = next(one for one in judgement.verdicts if one.state == "unknown")
    assert unknown.details[-1] == "ZeroDivisionError: broken"


def test_evidence_that_cannot_be_replayed_makes_every_verdict_unknown() -> None:
    case = correct()
    evidence = case.evidence()
    broken = evidence.runs[0].operations[0]._replace(path=None)  # type: ignore[arg-type]
    run = dataclasses.replace(evidence.runs[0], operations=(broken,))
    judgement = judge(dataclasses.replace(evidence, runs=(run,)))
    assert {one.state for one in judgement.verdicts} == {"unknown"}
    assert judgement.outcome is Outcome.INVALID


def test_a_run_that_never_took_place_is_invalid_unless_the_one_before_it_hung() -> None:
    case = correct()
    evidence = case.evidence()
    assert judge(dataclasses.replace(evidence, runs=())).outcome is Outcome.INVALID
    case.runs[0].hung = (0, 1)
    evidence = case.evidence()
    evidence = dataclasses.replace(evidence, runs=evidence.runs[:1])
    assert judge(evidence).outcome is Outcome.HANG


@pytest.mark.parametrize(
    ("guards", "violated", "unknown", "expected"),
    [
        ([], [], 0, "PASS"),
        ([], [], 1, "INVALID"),
        ([Outcome.INVALID], [Outcome.HANG], 0, "INVALID"),
        ([Outcome.HARD_FAIL], [Outcome.HANG, Outcome.LEAK], 0, "HANG"),
        ([Outcome.HARD_FAIL], [Outcome.SILENT_DIVERGENCE], 0, "HARD_FAIL"),
        ([], [Outcome.LEAK, Outcome.LOST_WORK, Outcome.SILENT_DIVERGENCE], 0, "SILENT_DIVERGENCE"),
        ([], [Outcome.LEAK, Outcome.LOST_WORK], 1, "LOST_WORK"),
    ],
)
def test_the_worst_outcome_wins(
    guards: list[Outcome], violated: list[Outcome], unknown: int, expected: str
) -> None:
    assert worst(failed_guards=guards, violated=violated, unknown=unknown) == expected


def _struck_in_the_loop(*, leaves: bool) -> Case:
    """A rank that says it raises; it does, or it trains on."""
    first, second = RunCase(), RunCase()
    first.start()
    first.train(1, 2)
    first.save(2)
    first.train(3, 3)
    first.strikes.append(strike("raise", {"error": "RuntimeError"}, ranks=(1,), step=3))
    first.fired.append(Fired(strike="s", index=len(first.operations), time_s=0.0, ranks=(1,)))
    first.record(Struck(strike="s"), [1])
    if leaves:
        first.fail("step", kind="RuntimeError")
    second.start(2)
    second.train(3, 8)
    second.finish(8)
    return Case(runs=[first, second])


@pytest.mark.parametrize("leaves", [True, False])
def test_a_strike_in_the_loop_counts_only_when_its_exception_left_it(*, leaves: bool) -> None:
    judged = judge(_struck_in_the_loop(leaves=leaves).evidence())
    fired = next(one for one in judged.guards if one.name == "strikes_complete")
    described = ("run 0: s struck, but nothing left the loop of rank 1",)
    assert fired.details == (() if leaves else described)
