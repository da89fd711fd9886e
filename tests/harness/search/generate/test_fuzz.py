"""A session: known failures first, then new scenarios, and few shrinks of one signature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from harness import __main__ as command
from harness.judge.outcome import Outcome
from harness.plan.model import Implementation
from harness.prove import Proof
from harness.run import support
from harness.run.services import Services
from harness.scenario.schema import Run, Scenario
from harness.search import scenarios as scenarios_module
from harness.search.generate import fuzz as module
from harness.search.generate.attempt import Attempt
from harness.search.generate.fuzz import Fuzz, Tally, fuzz, summary, try_one
from harness.search.shrink.reduce import Reduced
from harness.search.shrink.shrink import Shrunk
from harness.search.shrink.signature import Signature
from harness.system.errors import HarnessError
from tests.harness.proving import bench_of

LEAK = Signature(outcome=Outcome.LEAK, broken="clean")
POWERLESS = "skipped, a power cut on ext4 needs root, to mount an image"
KNOWN = {"red": "LEAK by clean", "powerless": POWERLESS}
SMALL = Scenario(name="sync: a small one", runs=(Run(until_step=1),))


class FakePool:
    """Does at once what a worker would do, by a function of the work and its arguments."""

    answer: Callable[..., Any]

    def __init__(self, *_: Any, **__: Any) -> None:
        self.workers = 2

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(type(self).answer(work, *arguments))
        return future

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *_: object) -> None: ...


class Clock:
    """Stands still until the last attempt."""

    now_s = 1.0

    def monotonic(self) -> float:
        return self.now_s


def attempt_of(number: int) -> Attempt:
    """Every third fails, in its own way; every tenth proves nothing."""
    scenario = Scenario(name=f"sync: number {number}", seed=number, runs=(Run(until_step=4),))
    if number % 3 == 0:
        proof = Proof(outcome=Outcome.LEAK, text="LEAK", replay="pytest a.yaml")
        return Attempt(number=number, scenario=scenario, came="failed", signature=LEAK, proof=proof)
    return Attempt(number=number, scenario=scenario, came="vacuous" if number == 10 else "passed")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], bool]:
    """Runs a session of so many attempts in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "Pool", FakePool)

    def reduce_failure(start: Scenario, *_: Any) -> Reduced:
        shrunk = Shrunk(kept=(start, SMALL), tried=7, is_complete=True)
        proof = Proof(outcome=Outcome.LEAK, text="LEAK", replay="pytest small.yaml")
        return Reduced(scenario=SMALL, proof=proof, shrunk=shrunk, seconds=2.0)

    monkeypatch.setattr(module, "reduce_failure", reduce_failure)

    def run(number: int) -> bool:
        def answer(work: Callable[..., Any], *arguments: Any) -> Any:
            if work is not try_one:
                return KNOWN.get(arguments[0].name, "PASS")
            clock.now_s += 60.0 * (arguments[1] == number)
            return attempt_of(arguments[1])

        clock = Clock()
        monkeypatch.setattr(module, "time", clock)
        FakePool.answer = staticmethod(answer)
        return fuzz(Fuzz(minutes=1, seed=0, workers=1, implementation=Implementation()))

    return run


def test_a_session_says_how_much_was_tried_and_how_much_proved_nothing(
    session: Callable[[int], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert session(2) is True
    assert "2 passed, 0 failed, 0 vacuous" in capsys.readouterr().out
    session(10)
    text = capsys.readouterr().out
    assert "6 passed, 3 failed, 1 vacuous" in text
    assert "10 % proved nothing, because one of their strikes never fired" in text


def test_what_this_machine_cannot_run_is_told_apart() -> None:
    tally = Tally(came=Counter(passed=3, skipped=2), lacking=Counter({"no root": 2}))
    first, _, third, _ = summary(tally, 60.0, 0).splitlines()
    assert first.endswith("3 passed, 0 failed, 0 vacuous, 2 skipped")
    assert third == "2 skipped: no root"


def test_a_known_failure_that_this_machine_cannot_run_is_told_and_not_red(
    session: Callable[[int], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("failures").mkdir()
    text = "name: powerless\nruns: [{until_step: 2}]\n"
    Path("failures/one.yaml").write_text(text, encoding="utf-8")
    assert session(1) is True
    assert f"known: {POWERLESS}: " in capsys.readouterr().out


def test_without_a_disk_whose_power_can_be_cut_no_run_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        scenarios_module, "missing_disk", lambda filesystem: f"no {filesystem} here"
    )
    run = Run.model_validate(
        {"until_step": 2, "faults": ({"power_cut": {"filesystem": "xfs"}, "at": {"step": 1}},)}
    )
    with Services(tmp_path / "services") as unused:
        bench = bench_of(unused, tmp_path)
    found = module._outcome(bench, Scenario(name="a cut", runs=(run,)))
    assert found == "skipped, no xfs here"


def test_two_failures_of_one_signature_are_shrunk_and_the_others_kept(
    session: Callable[[int], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert session(12) is False
    text = capsys.readouterr().out
    assert text.count("shrunk by 7 candidates in 2 s") == 2
    assert text.count("kept as it is: python -m harness shrink") == 2
    assert (
        "name: 'sync: a small one'\nruns:\n  - {until_step: 1}\n  replay: pytest small.yaml" in text
    )


def test_known_failures_are_tried_first(
    session: Callable[[int], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("failures").mkdir()
    for name in ("red", "green"):
        text = f"name: {name}\nruns: [{{until_step: 2}}]\n"
        Path(f"failures/{name}.yaml").write_text(text, encoding="utf-8")
    Path("failures/broken.yaml").write_text("no scenario", encoding="utf-8")
    assert session(1) is False
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("known: passes now: ")
    assert first.endswith("failures/green.yaml")
    assert second.startswith("known: LEAK by clean: ")


def test_a_failure_of_the_harness_ends_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(*_: Any) -> Attempt:
        raise HarnessError("the server is gone")

    monkeypatch.setattr(module, "attempt", attempt)
    found = try_one(None, 1, 1, frozenset())  # type: ignore[arg-type]
    assert (found.came, found.reason) == ("broken", "the server is gone")


def test_the_commands_say_what_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert command.main(["shrink", "nowhere.yaml"]) == command.BAD_INPUT
    assert "nowhere.yaml cannot be shrunk" in capsys.readouterr().err
    assert command.main(["shrink", str(tmp_path)]) == command.BAD_INPUT
    assert command.main(["coverage"]) == command.PASSED
    assert "0 of " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["fuzz", "--without", "magic"])
    monkeypatch.setattr(support, "missing", lambda: "no seccomp")
    assert command.main(["fuzz"]) == command.BAD_INPUT
