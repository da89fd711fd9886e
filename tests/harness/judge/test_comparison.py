"""A replay is compared with what the failure came to before."""

from __future__ import annotations

import pytest

from harness.judge.comparison import Answer, Known, compare, describe_answer, know
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from tests.harness.judge.cases import correct


def came_to(outcome: Outcome, *broken: str, resumed: tuple[str, ...] = ("step 2",)) -> Known:
    return Known(outcome=outcome, broken=broken, resumed=resumed)


LEAK = came_to(Outcome.LEAK, "clean", "retention")


@pytest.mark.parametrize(
    ("now", "answer"),
    [
        (came_to(Outcome.PASS), Answer.FIXED),
        (came_to(Outcome.LEAK, "retention", "clean"), Answer.SAME),
        (came_to(Outcome.LEAK, "clean", "retention", resumed=("step 4",)), Answer.SAME),
        (came_to(Outcome.LEAK, "clean"), Answer.OTHER),
        (came_to(Outcome.HARD_FAIL, "clean", "retention"), Answer.OTHER),
        (came_to(Outcome.INVALID, "clean", "retention"), Answer.INVALID),
    ],
)
def test_outcome_and_what_is_broken_decide(now: Known, answer: Answer) -> None:
    assert compare(LEAK, now) is answer


def test_a_replay_that_proves_nothing_is_not_the_same_as_one_that_proved_nothing() -> None:
    nothing = came_to(Outcome.INVALID, "strikes_fired")
    assert compare(nothing, nothing) is Answer.INVALID


def test_what_was_broken_and_cannot_be_judged_now_is_not_fixed() -> None:
    now = Known(outcome=Outcome.PASS, broken=(), resumed=("step 2",), idle=("retention",))
    assert compare(LEAK, now) is Answer.INVALID
    assert compare(came_to(Outcome.HANG, "bounded"), now) is Answer.FIXED


def test_a_run_that_passed_and_passes_again_is_the_same() -> None:
    assert compare(came_to(Outcome.PASS), came_to(Outcome.PASS)) is Answer.SAME


def test_the_answer_is_told_with_both_sides_and_where_they_resumed() -> None:
    now = came_to(Outcome.LOST_WORK, "nothing_lost", resumed=("a fresh start",))
    assert describe_answer(LEAK, LEAK) == "SAME: it was LEAK (clean, retention)"
    assert describe_answer(LEAK, now) == (
        "OTHER: it was LEAK (clean, retention), now it is LOST_WORK (nothing_lost); "
        "it resumed from step 2 then, from a fresh start now"
    )


def test_violated_properties_failed_guards_and_resumes_are_known_of_a_judgement() -> None:
    case = correct()
    case.runs[0].leaked = ("a process",)
    case.runs[0].fired.clear()
    known = know(judge(case.evidence()))
    assert known.outcome is Outcome.HARD_FAIL
    assert known.broken[0] == "strikes_fired"
    assert "clean" in known.broken
    assert known.resumed == ("step 2",)
    assert known.idle == ("freeze_consistent", "integrity", "no_code_on_load")
