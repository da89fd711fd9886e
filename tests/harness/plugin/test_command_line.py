"""`python -m harness`: the schema, judging again, replaying, and the exit status of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import __main__ as command
from harness import prove as module
from harness import trial
from harness.evidence.read import read_evidence
from harness.judge.judge import Judgement
from harness.judge.outcome import Outcome
from harness.judge.properties import PROMISES
from harness.judge.verdict import Finding
from harness.mutants import command as mutants_command
from harness.mutants.command import Wish
from harness.plan.model import Plan
from harness.prove import Proof
from harness.run import support
from harness.trial import Bench, Trial
from tests.harness.judge.cases import Case, correct, killed_run, write_run


def test_the_schema_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["schema"]) == command.PASSED
    assert json.loads(capsys.readouterr().out)["title"] == "Scenario"


def test_a_directory_without_a_run_cannot_be_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["judge", str(tmp_path)]) == command.BAD_INPUT
    assert f"{tmp_path} is not a whole run directory" in capsys.readouterr().err


def test_a_file_that_is_no_scenario_cannot_be_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("", encoding="utf-8")
    assert command.main(["replay", str(path)]) == command.BAD_INPUT
    assert capsys.readouterr().err.startswith(f"{path}:1: the file is empty")


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [((Outcome.PASS, Outcome.PASS), command.PASSED), ((Outcome.PASS, Outcome.LEAK), command.RED)],
)
def test_a_replay_says_what_came_of_each_scenario(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcomes: tuple[Outcome, Outcome],
    status: int,
) -> None:
    coming = iter(outcomes)

    def prove(*arguments: object, **named: object) -> Proof:
        outcome = next(coming)
        return Proof(outcome=outcome, text="" if outcome is Outcome.PASS else "LEAK and why")

    monkeypatch.setattr(module, "prove", prove)
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nruns: [{until_step: 2}]\nmatrix: {seed: [1, 2]}\n", encoding="utf-8")
    assert command.main(["replay", str(path)]) == status
    second = "PASS a [2]" if status == command.PASSED else "LEAK and why"
    assert capsys.readouterr().out == f"PASS a [1]\n{second}\n"


@pytest.mark.parametrize("arguments", [[], ["run"], ["judge"], ["replay", "a.yaml", "-x"]])
def test_arguments_that_mean_nothing_end_with_the_status_of_bad_input(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == command.BAD_INPUT
    assert "usage: python -m harness" in capsys.readouterr().err


def test_crash_states_of_a_run_directory_are_judged_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_run(tmp_path / "ran", correct())

    assert command.main(["crash-states", str(directory), "--limit", "0"]) == command.PASSED

    text = capsys.readouterr().out
    assert text.startswith("PASS sync: flush: a rank dies (fsdp2): crash states, profile posix")
    assert " 0 causes of hits" in text


def test_a_missing_sync_is_told_with_its_operations_and_the_status_is_red(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = killed_run()
    run.commit(4, sync=False)
    run.point(4)
    directory = write_run(tmp_path / "ran", Case(runs=[run]))

    arguments = ["crash-states", str(directory), "--limit", "0", "--profile", "ordered"]
    assert command.main(arguments) == command.RED

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("HARD_FAIL")
    assert any("  - safe only if " in line or "  - not safe" in line for line in lines)


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (Outcome.PASS, ""),
        (Outcome.LEAK, "the run itself: LEAK a: clean\n"),
        (Outcome.INVALID, "the run itself: INVALID a: unknown verdicts\n"),
    ],
)
def test_crash_states_of_a_red_run_begin_with_its_outcome_and_keep_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: Outcome,
    line: str,
) -> None:
    def try_plan(bench: Bench, _plan: Plan) -> Trial:
        evidence = read_evidence(write_run(bench.workspace.new_run("a"), correct()))
        verdict = PROMISES["clean"].violated([Finding(detail="a process stayed")])
        verdicts = (verdict,) if outcome is Outcome.LEAK else ()
        judgement = Judgement(outcome=outcome, verdicts=verdicts, guards=())
        return Trial(evidence=evidence, judgement=judgement, workspace=bench.workspace)

    monkeypatch.setattr(trial, "try_plan", try_plan)
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nruns: [{until_step: 2}]\n", encoding="utf-8")
    assert command.main(["crash-states", str(path), "--limit", "0"]) == command.PASSED
    before, found, rest = capsys.readouterr().out.partition("PASS sync: flush")
    assert (before, found) == (line, "PASS sync: flush")
    assert ("/failures/a-crash-states\n" in rest) is bool(line)


def test_crash_states_of_nothing_are_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["crash-states", str(tmp_path), "--limit", "0"]) == command.BAD_INPUT
    assert "is not a whole run directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sample", "status"),
    [([], 0, command.PASSED), (["--sample", "3"], 3, command.RED), (["--full"], None, command.RED)],
)
def test_mutants_are_run_as_wished_and_the_status_says_whether_all_were_caught(
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sample: int | None,
    status: int,
) -> None:
    wished: list[Wish] = []

    def try_mutants(wish: Wish) -> bool:
        wished.append(wish)
        return wish.sample == 0

    monkeypatch.setattr(mutants_command, "try_mutants", try_mutants)
    monkeypatch.setattr(support, "missing", lambda: None)
    assert command.main(["mutants", *arguments]) == status
    assert [one.sample for one in wished] == [sample]


def test_a_catalogue_that_is_not_there_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(support, "missing", lambda: None)
    assert command.main(["mutants", "--catalogue", "nowhere:BUGS"]) == command.BAD_INPUT
    assert "nowhere:BUGS: No module named 'nowhere'" in capsys.readouterr().err
