"""One plan from run to report: what passed leaves nothing, what failed leaves a way back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness import trial
from harness.evidence.evidence import Evidence
from harness.judge.judge import Judgement
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.promises import DOCUMENTED, parse_promises
from harness.prove import Proof, prove, replay_command
from harness.run.services import Services
from harness.scenario.read import ScenarioFile, read_file
from harness.system.errors import HarnessError
from harness.trial import Bench
from harness.workspace import Workspace

TEXT = 'name: "sync: an event log"\nruns: [{until_step: 2}]\n'


PYTEST = f"{sys.executable} -m pytest"
"""A replay uses the Python that ran, because its virtual environment may not be active."""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace whose failures are below the current directory."""
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(root=tmp_path / "session", failures=tmp_path / "failures")
    with closing(workspace):
        yield workspace


def run(workspace: Workspace, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> Proof:
    """Prove a scenario whose job does nothing and whose judge says what it is told."""

    def execute(plan: Plan, directory: Path, *_: object) -> Evidence:
        (directory / "run0").mkdir(parents=True)
        return Evidence(directory=str(directory), plan=plan, reference=(), runs=())

    def judge(evidence: Evidence) -> Judgement:
        return Judgement(outcome=outcome, verdicts=(), guards=())

    monkeypatch.setattr(trial, "execute", execute)
    monkeypatch.setattr(trial, "judge", judge)
    return start(workspace)


def start(workspace: Workspace) -> Proof:
    path = workspace.failures.parent / "log.yaml"
    path.write_text(TEXT, encoding="utf-8")
    file = read_file(path, shown="log.yaml", gpus=0)[""]
    assert isinstance(file, ScenarioFile)
    plan = make_plan(file.scenario, source="log.yaml", implementation=Implementation())
    bench = Bench(services=Services(workspace.shared), workspace=workspace)
    return prove(bench, plan, file.source)


def test_a_scenario_that_passed_leaves_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = run(workspace, Outcome.PASS, monkeypatch)
    assert proof == Proof(outcome=Outcome.PASS)
    assert list(workspace.root.iterdir()) == []
    assert not workspace.failures.exists()


def test_a_failure_leaves_its_file_its_run_and_the_command_that_replays_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = run(workspace, Outcome.HANG, monkeypatch)
    (file,) = workspace.failures.glob("*.yaml")
    assert proof.replay == f"{PYTEST} failures/{file.name}"
    assert proof.text.startswith("HANG sync: an event log\n")
    assert f"evidence: failures/{file.stem}\n" in proof.text
    assert proof.text.rstrip().endswith(proof.replay)
    assert (workspace.failures / file.stem / "run0").is_dir()
    assert list(workspace.root.iterdir()) == []


def test_the_evidence_stays_when_the_harness_itself_breaks(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(plan: Plan, directory: Path, *_: object) -> Evidence:
        (directory / "run0").mkdir(parents=True)
        raise HarnessError("no server")

    monkeypatch.setattr(trial, "execute", break_down)
    with pytest.raises(HarnessError, match="no server"):
        start(workspace)
    assert (workspace.failures / "sync-an-event-log" / "run0").is_dir()


def test_the_replay_command_can_be_pasted_into_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failure = tmp_path / "failures" / "a b.yaml"
    assert replay_command(failure, Implementation()) == f"{PYTEST} 'failures/a b.yaml'"
    other = Implementation(name="mine:Manager", path=str(tmp_path / "my code"), promises=DOCUMENTED)
    assert replay_command(failure, other) == (
        f"{PYTEST} 'failures/a b.yaml' --implementation mine:Manager"
        " --implementation-path 'my code'"
    )
    elsewhere = Implementation(path="/opt/checkout", promises=DOCUMENTED)
    assert replay_command(failure, elsewhere).endswith(" --implementation-path /opt/checkout")
    more = elsewhere.model_copy(update={"promises": parse_promises("documented,power_cuts")})
    assert replay_command(failure, more).endswith(" --promises documented,power_cuts")
    assert replay_command(failure, Implementation(promises=parse_promises("all,-errors"))) == (
        f"{PYTEST} 'failures/a b.yaml' --promises all,-errors"
    )


def replay(workspace: Workspace, file: Path) -> Proof:
    """Prove the scenario of a file; its job does nothing and its judge says what it is told."""
    found = read_file(file, gpus=0)[""]
    assert isinstance(found, ScenarioFile)
    plan = make_plan(found.scenario, source=file.name, implementation=Implementation())
    bench = Bench(services=Services(workspace.shared), workspace=workspace)
    return prove(bench, plan, found.source)


@pytest.mark.parametrize(
    ("outcome", "described", "left"),
    [
        (Outcome.PASS, "FIXED: it was HANG (nothing broken), now it is PASS (nothing broken)", ""),
        (Outcome.HANG, "SAME: it was HANG (nothing broken)", "STEM"),
        (
            Outcome.LEAK,
            "OTHER: it was HANG (nothing broken), now it is LEAK (nothing broken)",
            "STEM-other",
        ),
        (
            Outcome.INVALID,
            "INVALID: it was HANG (nothing broken), now it is INVALID (nothing broken)",
            "STEM-invalid",
        ),
    ],
)
def test_a_failure_file_is_compared_with_its_replay_and_stays(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome,
    described: str,
    left: str,
) -> None:
    run(workspace, Outcome.HANG, monkeypatch)
    (file,) = workspace.failures.glob("*.yaml")
    before = file.read_text(encoding="utf-8")
    monkeypatch.setattr(
        trial, "judge", lambda _: Judgement(outcome=outcome, verdicts=(), guards=())
    )

    proof = replay(workspace, file)

    assert (str(proof.answer), proof.summary) == (described.partition(":")[0], described)
    assert file.read_text(encoding="utf-8") == before
    if left:
        assert proof.text.startswith(f"{described}\n{outcome} sync: an event log\n")
        assert f"failures/{left.replace('STEM', file.stem)}\n" in proof.text


def test_a_replay_with_other_code_says_so(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(workspace, Outcome.HANG, monkeypatch)
    (file,) = workspace.failures.glob("*.yaml")
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace("name:", "# implementation: mine:Manager in /code\nname:", 1), encoding="utf-8"
    )
    monkeypatch.setattr(
        trial, "judge", lambda _: Judgement(outcome=Outcome.PASS, verdicts=(), guards=())
    )
    assert replay(workspace, file).summary.endswith(
        "(the failure was that of mine:Manager, this is "
        "kempnerforge.checkpoint.manager:CheckpointManager)"
    )
