"""`--repeat` and `--flake`: each scenario several times, and what differs."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from harness import prove as module
from harness import pytest_plugin
from harness.judge.outcome import Outcome
from harness.prove import Proof
from harness.report.spread import Spread, describe_spreads, spreads
from harness.run import support

pytest_plugins = ["pytester"]

PASSED = Proof(outcome=Outcome.PASS)
LEAK = Proof(outcome=Outcome.LEAK, text="LEAK", replay="again", broken=("clean",))
LEFT = Proof(outcome=Outcome.LEAK, text="LEAK", replay="again", broken=("retention",))


def given(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *proofs: Proof) -> None:
    """Two scenarios; the proofs come one after the other, again and again."""
    coming = itertools.cycle(proofs)
    monkeypatch.setattr(module, "prove", lambda *_, **__: next(coming))
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.setattr(pytest_plugin, "count_gpus", lambda: 0)
    for name in ("a", "b"):
        path = pytester.path / "scenarios" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("name: a\nruns: [{until_step: 2}]\n", encoding="utf-8")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "harness.pytest_plugin", *arguments)


def test_each_scenario_runs_so_often_and_the_spread_is_told(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(pytester, monkeypatch, PASSED)
    result = run(pytester, "scenarios", "--repeat", "3", "-v")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(
        [
            "*scenarios/a.yaml::scenario-1of3*",
            "*scenarios/b.yaml::scenario-1of3*",
            "*scenarios/a.yaml::scenario-2of3*",
            "scenarios/a.yaml::scenario: 3 x PASS",
            "scenarios/b.yaml::scenario: 3 x PASS",
            "2 items in 6 runs: 0 with different verdicts",
        ]
    )
    assert result.ret == 0


def test_different_verdicts_of_one_scenario_are_told_and_red(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(pytester, monkeypatch, PASSED, LEAK, PASSED, LEFT)
    result = run(pytester, "scenarios", "--repeat", "4", "--flake")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "FLAKY scenarios/b.yaml::scenario: 2 x LEAK (clean), 2 x LEAK (retention)",
            "2 items in 8 runs: 1 with different verdicts",
        ]
    )
    assert "a.yaml::scenario: 4 x PASS" not in result.stdout.str()


def test_a_scenario_that_passes_or_is_skipped_is_red_with_flake(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(pytester, monkeypatch, PASSED)
    coming = itertools.cycle([None, None, "the GPU is gone"])
    monkeypatch.setattr(support, "missing", lambda: next(coming))
    result = run(pytester, "scenarios", "--repeat", "2", "--flake")
    result.assert_outcomes(passed=3, skipped=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FLAKY scenarios/a.yaml::scenario: 1 x PASS, 1 x skipped"])


def test_flake_alone_runs_each_ten_times(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(pytester, monkeypatch, PASSED)
    run(pytester, "scenarios", "--flake").assert_outcomes(passed=20)


def test_without_the_options_nothing_is_repeated_or_told(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(pytester, monkeypatch, PASSED)
    result = run(pytester, "scenarios")
    result.assert_outcomes(passed=2)
    assert "verdicts" not in result.stdout.str()


def test_fewer_than_one_run_is_refused(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--repeat", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--repeat 0: at least 1 run is needed*"])


CONFTEST = """
import harness.prove, harness.run.support
from harness.judge.comparison import Answer
from harness.judge.outcome import Outcome
from harness.prove import Proof

def prove(bench, plan, source):
    outcome = Outcome.LEAK if plan.source.endswith("b.yaml") else Outcome.PASS
    broken = ("clean",) if outcome is Outcome.LEAK else ()
    return Proof(outcome=outcome, text="red", replay="pytest failures/b.yaml", broken=broken,
                 answer=Answer.SAME, summary="SAME: it was LEAK (clean)")

harness.prove.prove = prove
harness.run.support.missing = lambda: None
"""


def test_workers_send_outcome_and_replay_command_to_junit_and_verdicts_to_the_spread(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(CONFTEST)
    for name in ("a", "b"):
        path = pytester.path / "scenarios" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("name: a\nruns: [{until_step: 2}]\n", encoding="utf-8")
    arguments = ("-n", "2", "--repeat", "2", "--junitxml", "junit.xml", "scenarios")
    result = pytester.runpytest_subprocess("-p", "harness.pytest_plugin", *arguments)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["2 items in 4 runs: 0 with different verdicts"])
    assert "scenarios/b.yaml::scenario: 2 x SAME LEAK (clean)" in result.outlines
    found = [_properties(one) for one in _cases(pytester.path / "junit.xml")]
    assert {one["outcome"] for one in found} == {"PASS", "LEAK"}
    red = next(one for one in found if one["outcome"] == "LEAK")
    assert red == {
        "device": "cpu",
        "repetition_of": "scenarios/b.yaml::scenario",
        "outcome": "LEAK",
        "answer": "SAME",
        "replayed": "SAME: it was LEAK (clean)",
        "broken": "clean",
        "known_as": "scenarios/b.yaml::scenario",
        "replay": "pytest failures/b.yaml",
    }


def _cases(path: Path) -> list[Any]:
    return list(ElementTree.parse(path).iter("testcase"))


def _properties(case: Any) -> dict[str, str]:
    return {one.get("name"): one.get("value") for one in case.iter("property")}


def test_the_most_frequent_verdict_comes_first() -> None:
    found = spreads([("a", "PASS"), ("b", "LEAK"), ("a", "HANG"), ("a", "HANG")])
    assert found == (
        Spread(item="a", verdicts={"PASS": 1, "HANG": 2}),
        Spread(item="b", verdicts={"LEAK": 1}),
    )
    assert list(describe_spreads(found, only_flaky=True)) == [
        "FLAKY a: 2 x HANG, 1 x PASS",
        "2 items in 4 runs: 1 with different verdicts",
    ]
