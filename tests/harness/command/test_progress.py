"""What is new is said at once, and how far it is at most every few seconds."""

from __future__ import annotations

from harness.command.outcome import CommandTrial, Kind, Setting
from harness.command.progress import TrialProgress
from harness.judge.outcome import Outcome


def trial(
    outcome: Outcome, place: int, text: str = "", kind: Kind = "killed", *, other: bool = False
) -> CommandTrial:
    return CommandTrial(
        setting=Setting(kind=kind, place=place, text=f"killed after operation {place}"),
        outcome=outcome,
        text=text,
        resumed=None,
        other_words=other,
    )


def said_of(*trials: CommandTrial, seconds: float) -> list[str]:
    """The lines of trials that end so many seconds after one another."""
    said, now_s = list[str](), 0.0
    progress = TrialProgress(said.append, lambda: now_s)
    progress.begin("states", 9)
    for one in trials:
        progress.note(one)
        now_s += seconds
    return said


FAIL, PASS = Outcome.HARD_FAIL, Outcome.PASS


def test_each_kind_of_failure_is_said_once() -> None:
    failures = [trial(FAIL, place, f"Error: line {place}") for place in (1, 2)]
    other = trial(Outcome.HANG, 3, "it did not end")
    assert said_of(*failures, other, seconds=1.0) == [
        "HARD_FAIL: Error: line 1 (killed after operation 1)",
        "1 of 9 states tried: 0 passed, 1 HARD_FAIL",
        "HANG: it did not end (killed after operation 3)",
    ]


def test_the_count_comes_with_the_first_one_and_then_every_five_seconds() -> None:
    trials = [trial(PASS, place) for place in range(8)]
    assert said_of(*trials, seconds=2.0) == [
        "1 of 9 states tried: 1 passed",
        "4 of 9 states tried: 4 passed",
        "7 of 9 states tried: 7 passed",
    ]


def test_a_failure_that_may_be_none_is_not_said() -> None:
    early = trial(FAIL, 1, "no checkpoint", other=True)
    late = trial(FAIL, 5, "no checkpoint", other=True)
    found = said_of(early, trial(PASS, 3, other=True), late, seconds=0.0)
    assert found[1:] == ["HARD_FAIL: no checkpoint (killed after operation 5)"]
