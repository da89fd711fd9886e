"""Results of training scripts are compared with what is known of them, and shown on a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.command.outcome import CommandTrial, Kind, Setting
from harness.command.trying import CommandReport
from harness.conformance.case import (
    ConformanceCase,
    ConformanceError,
    KnownViolation,
    read_cases,
)
from harness.conformance.command import Environment
from harness.conformance.page import describe_result, page
from harness.conformance.result import CaseResult, CaseRun, read_run, result_of, store
from harness.judge.outcome import Outcome

CASES = Path(__file__).parents[3] / "conformance"

TORN = KnownViolation(
    id="torn_file",
    outcome=Outcome.HARD_FAIL,
    text="EOFError|bad magic",
    by=("killed", "torn"),
    says="The file cannot be read.",
    cause="It is written in place.",
    checked="With strace.",
)
CASE = ConformanceCase(
    title="A loop",
    packages=("torch",),
    script="loop.py",
    command=("python", "loop.py", "{dir}"),
    violations=(TORN,),
)


def trial(
    kind: Kind, place: int, outcome: Outcome, text: str = "", resumed: int | None = None
) -> CommandTrial:
    setting = Setting(kind=kind, place=place, text=f"{kind} after operation {place}")
    return CommandTrial(setting=setting, outcome=outcome, text=text, resumed=resumed)


def run_of(*trials: CommandTrial) -> CaseRun:
    report = CommandReport(
        tried=trials, from_states=len(trials), states=40, seconds=2.0, not_judged=("the rest",)
    )
    return CaseRun(versions={"torch": "2.13.0"}, day="2026-11-30", report=report)


def result(*trials: CommandTrial, case: ConformanceCase = CASE) -> CaseResult:
    return result_of(run_of(*trials), case)


RIGHT = trial("killed", 1, Outcome.PASS)
TORN_BY_KILL = trial("killed", 2, Outcome.HARD_FAIL, "EOFError: at 7")
TORN_BY_HALF = trial("torn", 3, Outcome.HARD_FAIL, "bad magic 12")


def test_instances_of_a_known_violation_are_counted_as_one_whatever_their_sentences() -> None:
    found = result(RIGHT, TORN_BY_HALF, TORN_BY_KILL)
    assert found.is_expected(CASE)
    assert found.new == ()
    assert dict(found.known["torn_file"].counts) == {"killed": 1, "torn": 1}
    assert found.known["torn_file"].first == "killed after operation 2"
    assert dict(found.outcomes) == {Outcome.PASS: 1, Outcome.HARD_FAIL: 2}
    assert dict(found.struck) == {"killed": 2, "torn": 1}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(trial("killed", 4, Outcome.HARD_FAIL, "KeyError"), id="another sentence"),
        pytest.param(trial("power", 4, Outcome.HARD_FAIL, "EOFError"), id="by less than known"),
        pytest.param(trial("killed", 4, Outcome.HANG, "EOFError"), id="another outcome"),
    ],
)
def test_an_outcome_that_no_known_violation_covers_is_new(other: CommandTrial) -> None:
    found = result(TORN_BY_KILL, other)
    assert not found.is_expected(CASE)
    (new,) = found.new
    assert (new.outcome, new.sentence) == (other.outcome, other.text)
    assert "NEW: " in describe_result(CASE, found)
    assert "**Not checked:** " in page({"loop": CASE}, {"loop": found})


def test_a_known_violation_that_is_not_seen_has_vanished() -> None:
    found = result(RIGHT)
    assert found.vanished(CASE) == ("torn_file",)
    assert not found.is_expected(CASE)
    assert "VANISHED: torn_file" in describe_result(CASE, found)


def test_one_that_depends_on_timing_may_be_absent() -> None:
    rare = CASE.model_copy(update={"violations": (TORN.model_copy(update={"certain": False}),)})
    found = result(RIGHT, case=rare)
    assert found.is_expected(rare)
    assert "torn_file" not in page({"loop": rare}, {"loop": found})


def test_work_that_is_lost_counts_once_and_is_matched_by_its_sentence() -> None:
    lost = TORN.model_copy(
        update={"id": "lost", "outcome": Outcome.LOST_WORK, "text": "resumed at step 1,"}
    )
    case = CASE.model_copy(update={"violations": (lost,)})
    newer = trial("killed", 5, Outcome.PASS, resumed=5)
    older = trial("killed", 6, Outcome.PASS, resumed=1)
    found = result(newer, older, case=case)
    assert found.is_expected(case)
    assert dict(found.outcomes) == {Outcome.PASS: 1, Outcome.LOST_WORK: 1}


def test_a_run_is_read_as_it_was_stored_and_can_be_compared_again(tmp_path: Path) -> None:
    lost = trial("power", 4, Outcome.LOST_WORK, "it resumed", resumed=1)
    run, place = run_of(RIGHT, TORN_BY_KILL, lost), tmp_path / "results" / "loop.json"
    assert read_run(place) is None
    store(run, place)
    assert read_run(place) == run
    ignorant = CASE.model_copy(update={"violations": ()})
    assert len(result_of(run, ignorant).new) == len(result_of(run, CASE).new) + 1


def test_the_page_shows_each_violation_with_its_cause_and_what_was_not_run() -> None:
    absent = ConformanceCase(title="Another loop", packages=("torch",), not_run="no accelerator")
    text = page({"loop": CASE, "other": absent}, {"loop": result(RIGHT, TORN_BY_KILL)})
    assert "| [loop](#loop) | torch 2.13.0 | 1 | 2 | 0 | 0 | 0 | torn_file |" in text
    assert "**torn_file** (HARD_FAIL): The file cannot be read." in text
    assert "- Cause: It is written in place." in text
    assert "- Checked: With strace." in text
    assert "- Another loop: no accelerator" in text
    assert "1 PASS, 1 HARD_FAIL" in text


def test_a_command_that_cannot_be_tested_is_not_as_expected() -> None:
    run = CaseRun(versions={"torch": "2.13.0"}, day="2026-11-30", refused="it fails")
    refused = result_of(run, CASE)
    assert not refused.is_expected(CASE)
    assert "cannot be tested: it fails" in describe_result(CASE, refused)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title: A\npackages: [a]\n", "either a command or a reason"),
        ("title: A\npackages: [a]\ncommand: [a]\nscript: b\n", "its script is a word"),
        ("title: A\npackages: [a]\ncommand: [b]\nscript: b\n", "there is no script b"),
        ("title: A\npackages: [a]\ncommand: [b]\nwrong: 1\n", "wrong"),
        ("{", "while parsing a flow node"),
    ],
)
def test_a_case_that_contradicts_itself_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConformanceError, match=says):
        read_cases(tmp_path)


def test_without_the_scripts_packages_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match="run conformance/setup"):
        Environment(tmp_path)


def test_the_cases_of_the_repository_can_be_read_and_have_controls() -> None:
    cases = read_cases(CASES)
    assert {"torch_save_synced_rename", "kempnerforge_2"} <= {
        name for name, case in cases.items() if case.control
    }
