"""`python -m harness replay`: the exit status tells the answer, for files and for directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import __main__ as command
from harness import prove as prove_module
from harness import trial
from harness.evidence.evidence import Evidence
from harness.judge.comparison import Answer
from harness.judge.outcome import Outcome
from harness.plan.model import Plan
from harness.prove import Proof
from harness.run import inspecting, support
from harness.run.beginning import Beginning
from harness.run.services import Services
from tests.harness.judge.cases import Case, correct, write_run


def proof_of(outcome: Outcome, answer: Answer | None) -> Proof:
    return Proof(outcome=outcome, answer=answer, text=f"{answer} and why")


@pytest.mark.parametrize(
    ("proof", "status"),
    [
        (proof_of(Outcome.PASS, None), 0),
        (proof_of(Outcome.PASS, Answer.FIXED), 0),
        (proof_of(Outcome.PASS, Answer.SAME), 0),
        (proof_of(Outcome.LEAK, None), 1),
        (proof_of(Outcome.INVALID, None), 1),
        (proof_of(Outcome.LEAK, Answer.SAME), 1),
        (proof_of(Outcome.LEAK, Answer.OTHER), 3),
        (proof_of(Outcome.INVALID, Answer.INVALID), 125),
    ],
)
def test_each_answer_has_its_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proof: Proof, status: int
) -> None:
    monkeypatch.setattr(prove_module, "prove", lambda *_, **__: proof)
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nruns: [{until_step: 2}]\n", encoding="utf-8")
    assert command.main(["replay", str(path)]) == status


def leaking() -> Case:
    case = correct()
    case.runs[0].leaked = ("a process",)
    return case


@pytest.mark.parametrize(
    ("now", "status", "described"),
    [
        (correct(), 0, "FIXED: it was LEAK (clean), now it is PASS (nothing broken)\n"),
        (leaking(), 1, "SAME: it was LEAK (clean)\nLEAK sync: flush: a rank dies (fsdp2)\n"),
    ],
)
def test_a_run_directory_is_run_again_and_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    now: Case,
    status: int,
    described: str,
) -> None:
    ran: list[Plan] = []

    def execute(plan: Plan, directory: Path, services: Services, _: Beginning | None) -> Evidence:
        ran.append(plan)
        directory.mkdir(parents=True)
        return now.evidence()

    monkeypatch.setattr(trial, "execute", execute)
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.chdir(tmp_path)
    directory = write_run(tmp_path / "ran", leaking())

    assert command.main(["replay", str(directory)]) == status

    assert capsys.readouterr().out.startswith(described)
    assert ran == [leaking().evidence().plan]


def test_the_implementation_of_the_command_line_wins_over_that_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Plan] = []

    def execute(plan: Plan, directory: Path, services: Services, _: Beginning | None) -> Evidence:
        ran.append(plan)
        return correct().evidence()

    monkeypatch.setattr(trial, "execute", execute)
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.setattr(inspecting, "inspect_implementation", lambda one, _: one)
    monkeypatch.chdir(tmp_path)
    directory = write_run(tmp_path / "ran", leaking())
    assert command.main(["replay", str(directory), "--implementation", "mine:Manager"]) == 0
    assert [plan.implementation.name for plan in ran] == ["mine:Manager"]


def test_a_directory_that_is_no_run_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert command.main(["replay", str(tmp_path)]) == command.BAD_INPUT
    assert "is not a whole run directory" in capsys.readouterr().err
