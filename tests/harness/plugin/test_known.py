"""Lists of known reds: what they expect, and how one is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.judge.outcome import Outcome
from harness.known import KnownError, read_known, surprises, write_known
from harness.prove import Proof
from tests.harness.plugin.test_plugin import fake_prove, run, write

RED = Proof(outcome=Outcome.LOST_WORK, text="the report", broken=("nothing_lost", "clean"))


def _list(pytester: pytest.Pytester, text: str) -> str:
    path = pytester.path / "known.yaml"
    path.write_text(text, encoding="utf-8")
    return f"--known={path}"


def test_a_known_red_is_expected_and_makes_nothing_red(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_prove(monkeypatch, RED)
    write(pytester.path, "scenarios/a.yaml")
    known = _list(pytester, "scenarios/a.yaml::scenario: [clean, nothing_lost, bounded]")
    result = run(pytester, known, "-rx")
    result.assert_outcomes(xfailed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*known: nothing_lost, clean*"])


@pytest.mark.parametrize(
    "text", ["scenarios/a.yaml::scenario: [nothing_lost]", "scenarios/b.yaml::scenario: [clean]"]
)
def test_a_scenario_that_breaks_something_else_is_red(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    fake_prove(monkeypatch, RED)
    write(pytester.path, "scenarios/a.yaml")
    run(pytester, _list(pytester, text)).assert_outcomes(failed=1)


def test_a_report_says_what_is_new(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_prove(monkeypatch, RED)
    write(pytester.path, "scenarios/a.yaml")
    result = run(pytester, _list(pytester, "scenarios/a.yaml::scenario: [nothing_lost]"))
    result.stdout.fnmatch_lines(["*known, and now also clean:*"])


def test_a_known_red_that_passes_is_green_and_said_to_be_fixed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_prove(monkeypatch, Proof(outcome=Outcome.PASS))
    write(pytester.path, "scenarios/a.yaml")
    result = run(pytester, _list(pytester, "scenarios/a.yaml::scenario: [nothing_lost]"))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["scenarios/a.yaml::scenario: fixed, no longer nothing_lost"])


def test_the_list_that_a_session_writes_makes_the_next_one_green(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_prove(monkeypatch, RED)
    write(pytester.path, "scenarios/a.yaml", "scenarios/b.yaml")
    run(pytester, "--write-known=known.yaml").assert_outcomes(failed=2)
    assert set(read_known(pytester.path / "known.yaml")) == {
        "scenarios/a.yaml::scenario",
        "scenarios/b.yaml::scenario",
    }
    run(pytester, "--known=known.yaml").assert_outcomes(xfailed=2)
    # A list that is written again keeps what is still red.
    run(pytester, "--known=known.yaml", "--write-known=again.yaml").assert_outcomes(xfailed=2)
    assert read_known(pytester.path / "again.yaml") == read_known(pytester.path / "known.yaml")


def test_a_known_red_is_known_each_time_that_it_is_repeated(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_prove(monkeypatch, RED)
    write(pytester.path, "scenarios/a.yaml")
    known = _list(pytester, "scenarios/a.yaml::scenario: [clean, nothing_lost]")
    run(pytester, known, "--repeat=2").assert_outcomes(xfailed=2)


def test_an_invalid_scenario_can_be_known_too(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_prove(monkeypatch, Proof(outcome=Outcome.INVALID, text="no verdict"))
    write(pytester.path, "scenarios/a.yaml")
    run(pytester, "--write-known=known.yaml").assert_outcomes(failed=1)
    assert read_known(pytester.path / "known.yaml") == {"scenarios/a.yaml::scenario": ("INVALID",)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "found a list; expected a mapping"),
        ("a: b\n", "a: found 'b'; expected a list such as"),
        ("a: [1]\n", "a: found [[]1[]]; expected a list such as"),
        ("a: [b\n", "known.yaml is not YAML"),
    ],
)
def test_a_file_that_is_no_list_is_refused(pytester: pytest.Pytester, text: str, said: str) -> None:
    result = run(pytester, _list(pytester, text))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--known *{said}*"])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KnownError, match="No such file"):
        read_known(tmp_path / "known.yaml")


def test_an_empty_list_knows_nothing(tmp_path: Path) -> None:
    write_known(tmp_path / "known.yaml", "my.module:Manager", {})
    assert read_known(tmp_path / "known.yaml") == {}
    assert surprises({}, "a", ("clean",)) == ("clean",)
