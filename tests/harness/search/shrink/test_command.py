"""`shrink` takes a file, which it runs to see how it fails, or a run directory, which says it."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from harness.judge.outcome import Outcome
from harness.plan.model import Implementation
from harness.prove import Proof
from harness.scenario.schema import Run, Scenario
from harness.search.shrink import command as module
from harness.search.shrink.command import shrink_place
from harness.search.shrink.reduce import Reduced
from harness.search.shrink.shrink import Shrunk
from harness.search.shrink.signature import Signature
from tests.harness.judge.cases import correct, write_run

LEAK = Signature(outcome=Outcome.LEAK, broken="clean")
SMALL = Scenario(name="sync: a small one", runs=(Run(until_step=1),))
FILE = "name: a file\nruns: [{until_step: 2}]\n"


class FakePool:
    """Every file comes to what `signatures` say, one run after the other."""

    signatures: tuple[Signature | None, ...] = ()
    workers = 2

    def __init__(self, *_: Any, **__: Any) -> None:
        self._coming = iter(self.signatures)

    def submit(self, *_: Any) -> Future[Signature | None]:
        future: Future[Signature | None] = Future()
        future.set_result(next(self._coming))
        return future

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Scenario, Signature]]:
    """What is to be reduced; it becomes SMALL."""
    found: list[tuple[Scenario, Signature]] = []

    def reduce_failure(start: Scenario, signature: Signature, *_: Any, **__: Any) -> Reduced:
        found.append((start, signature))
        shrunk = Shrunk(kept=(start, SMALL), tried=7, is_complete=True)
        proof = Proof(outcome=Outcome.LEAK, replay="pytest small.yaml")
        return Reduced(scenario=SMALL, proof=proof, shrunk=shrunk, seconds=2.0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "Pool", FakePool)
    monkeypatch.setattr(module, "reduce_failure", reduce_failure)
    return found


def shrink(place: Path) -> bool:
    return shrink_place(place, implementation=Implementation(), workers=2, seconds=9)


def test_a_run_directory_says_how_it_failed_and_what_it_ran(
    asked: list[tuple[Scenario, Signature]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = correct()
    case.runs[0].leaked = ("pt_data_worker 4711",)
    assert shrink(write_run(tmp_path / "run", case)) is True
    ((scenario, signature),) = asked
    assert signature == LEAK
    assert [len(run.faults) for run in scenario.runs] == [1, 0]
    text = capsys.readouterr().out
    assert "shrunk by 7 candidates in 2 s" in text
    assert "name: 'sync: a small one'" in text
    assert text.endswith("pytest small.yaml\n")


def test_a_file_is_run_until_it_fails(
    asked: list[tuple[Scenario, Signature]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakePool, "signatures", (None, LEAK))
    (tmp_path / "a.yaml").write_text(FILE, encoding="utf-8")
    assert shrink(tmp_path / "a.yaml") is True
    assert [(one.name, signature) for one, signature in asked] == [("a file", LEAK)]


def test_a_file_that_passes_three_times_is_not_shrunk(
    asked: list[tuple[Scenario, Signature]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FakePool, "signatures", (None, None, None))
    (tmp_path / "a.yaml").write_text(FILE, encoding="utf-8")
    assert shrink(tmp_path / "a.yaml") is False
    assert asked == []
    assert capsys.readouterr().out == "PASS in 3 runs: there is nothing to shrink\n"
