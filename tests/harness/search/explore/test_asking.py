"""How an exploration is asked for: the file, the items of pytest, the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import __main__ as command
from harness import pytest_plugin
from harness.judge.outcome import Outcome
from harness.prove import Proof
from harness.run import support
from harness.scenario.errors import ScenarioError
from harness.scenario.exploration import Explore
from harness.scenario.read import read_file, read_scenario
from harness.scenario.schema import Run, Scenario
from harness.search.explore import command as exploring
from harness.search.explore import part as parting
from harness.search.explore.explore import RedBaseline
from harness.search.explore.job import PART_POINTS, Explored, count_parts
from harness.search.explore.points import ChosenPoints, nth_of_rank
from harness.search.explore.strike import StrikeOutcome
from harness.search.explore.summary import Summary, describe_summary, headline
from harness.trial import Bench

pytest_plugins = ["pytester"]

FILE = "name: 'explore: a'\nruns: [{until_step: 2}, {until_step: 4}]\n"


def job_of(**explore: Any) -> Explored:
    scenario = Scenario(
        name="explore: a",
        runs=(Run(until_step=2), Run(until_step=4)),
        explore=Explore(**explore),
    )
    return Explored(scenario=scenario, shown="a")


def summary_of(*outcomes: Outcome, fired: bool = True) -> Summary:
    job = job_of(budget=2)
    candidate = nth_of_rank(job.explore, "kill_all", 0, 1)
    struck = tuple(
        StrikeOutcome(
            name=f"kill_all #{number}",
            fired=fired,
            proof=Proof(outcome=one, text=f"{one} because", replay="pytest failures/a.yaml"),
        )
        for number, one in enumerate(outcomes)
    )
    choice = ChosenPoints(operations=5, points=10, distinct=6, chosen=(candidate,) * 2)
    return Summary(job=job, choice=choice, struck=struck)


def test_the_headline_counts_points_equal_ones_strikes_and_outcomes() -> None:
    assert headline(summary_of(Outcome.PASS, Outcome.LEAK)) == (
        "10 points at 5 operations, 4 judged as equal to another, 2 of 6 chosen (sampled by seed "
        "0), 2 struck: 1 LEAK, 1 PASS"
    )


def test_what_is_red_is_told_and_nothing_struck_is_not_green() -> None:
    assert "LEAK because" in describe_summary(summary_of(Outcome.LEAK))
    assert summary_of(Outcome.PASS).is_green
    assert not summary_of(Outcome.PASS, Outcome.LEAK).is_green
    assert not summary_of(Outcome.PASS, fired=False).is_green
    assert not summary_of().is_green


def test_what_the_baseline_breaks_is_not_counted_again_and_makes_nothing_green() -> None:
    found = summary_of(Outcome.PASS)
    broken = replace(found, choice=replace(found.choice, broken=("clean",), outcome=Outcome.LEAK))
    assert (broken.is_green, broken.outcome, broken.broken) == (False, Outcome.LEAK, ("clean",))
    worse = Proof(outcome=Outcome.LOST_WORK, broken=("clean", "nothing_lost"))
    struck = (replace(found.struck[0], proof=worse),)
    found = replace(broken, struck=struck)
    assert found.red == struck
    assert (found.outcome, found.broken) == (Outcome.LOST_WORK, ("clean", "nothing_lost"))


def test_of_many_reds_all_have_their_replay() -> None:
    assert (
        describe_summary(summary_of(*[Outcome.LEAK] * 6)).count("replay: pytest failures/a.yaml")
        == 3
    )


@pytest.mark.parametrize(
    ("explore", "expected"),
    [
        ("{run: 1}", "explore.run: run 1 is struck, and no run resumes after it"),
        ("{ranks: [1]}", "explore.ranks[0]: there is no rank 1"),
        ("{faults: [kil]}", "explore.faults[0]: 'kil' is not a fault; known: kill, kill_all"),
        ("{strikes: nth_failure, faults: [kill]}", "`nth_failure` takes only `fail_once`"),
        ("{strikes: nth_failure, phases: [seal]}", "leave `phases` out"),
        ("{ranks: [0, 0]}", "`ranks` names something twice"),
        ("{budget: 0}", "explore.budget: found 0"),
        ("{bugdet: 3}", "unknown key; known: strikes"),
    ],
)
def test_what_cannot_be_explored_is_refused_with_its_place(
    tmp_path: Path, explore: str, expected: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{FILE}explore: {explore}\n")
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path, gpus=0)
    assert expected in str(caught.value)


def test_an_expected_step_and_a_run_that_is_killed_cannot_be_explored(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    runs = "[{until_step: 2, faults: [{kill: {rank: 0}, at: {step: 1}}]}, {until_step: 4}]"
    path.write_text(
        f"name: 'explore: a'\nruns: {runs}\nexpect: {{resumed_from_step: 2}}\nexplore: {{}}\n"
    )
    with pytest.raises(ScenarioError) as caught:
        read_file(path, gpus=0)
    assert "run 0 is already ended" in str(caught.value)
    assert "leave `resumed_from_step` out" in str(caught.value)


def test_parts_have_a_dozen_points() -> None:
    assert [count_parts(budget) for budget in (1, PART_POINTS, PART_POINTS + 1)] == [1, 1, 2]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The parts that were struck; each is green."""
    found: list[tuple[int, int]] = []

    def fake(bench: Bench, job: Explored, number: int, of: int) -> Summary:
        found.append((number, of))
        return summary_of(Outcome.PASS)

    monkeypatch.setattr(parting, "explore_part", fake)
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.setattr(pytest_plugin, "count_gpus", lambda: 0)
    return found


def write(folder: Path, explore: str) -> None:
    path = folder / "scenarios/a.yaml"
    path.parent.mkdir()
    path.write_text(f"{FILE}explore: {explore}\n")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "harness.pytest_plugin", *arguments)


def test_each_part_is_an_item_that_can_be_chosen(
    pytester: pytest.Pytester, parts: list[tuple[int, int]]
) -> None:
    write(pytester.path, "{budget: 20}")
    result = run(pytester, "scenarios")
    result.assert_outcomes(passed=2)
    assert parts == [(0, 2), (1, 2)]
    result.stdout.fnmatch_lines(["scenarios/a.yaml::explore-1of2: 10 points at 5 operations*"])
    run(pytester, "scenarios/a.yaml::explore-2of2").assert_outcomes(passed=1)


def test_an_exploration_without_a_budget_runs_only_when_it_is_asked_for(
    pytester: pytest.Pytester, parts: list[tuple[int, int]]
) -> None:
    write(pytester.path, "{}")
    run(pytester, "scenarios").assert_outcomes(deselected=4)
    assert parts == []
    run(pytester, "-m", "long", "scenarios").assert_outcomes(passed=4)
    run(pytester, "scenarios/a.yaml").assert_outcomes(passed=4)


@pytest.mark.parametrize("red", [True, False])
def test_a_red_strike_or_a_red_baseline_fails_the_item(
    pytester: pytest.Pytester,
    parts: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    red: bool,
) -> None:
    def fake(*arguments: Any, **rest: Any) -> Summary:
        if red:
            return summary_of(Outcome.LEAK)
        raise RedBaseline(Proof(outcome=Outcome.LEAK, text="LEAK because"))

    monkeypatch.setattr(parting, "explore_part", fake)
    write(pytester.path, "{budget: 2}")
    result = run(pytester, "scenarios")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*LEAK because*"])
    assert "Traceback" not in result.stdout.str()


@pytest.mark.parametrize(
    ("outcome", "arguments", "status", "budget"),
    [
        (Outcome.PASS, [], command.PASSED, 2),
        (Outcome.LEAK, ["--budget", "5"], command.RED, 5),
        (Outcome.PASS, ["--all"], command.PASSED, None),
    ],
)
def test_the_command_line_explores_a_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Outcome,
    arguments: list[str],
    status: int,
    budget: int | None,
) -> None:
    asked: list[int | None] = []

    def fake(job: Explored, **rest: Any) -> Summary:
        asked.append(job.explore.budget)
        return summary_of(outcome)

    monkeypatch.setattr(exploring, "explore_job", fake)
    monkeypatch.setattr(support, "missing", lambda: None)
    path = tmp_path / "a.yaml"
    path.write_text(f"{FILE}explore: {{budget: 2}}\n")
    assert command.main(["explore", str(path), *arguments]) == status
    assert asked == [budget]


@pytest.mark.parametrize(
    ("word", "explore", "hint"),
    [("explore", "", "python -m harness replay"), ("replay", "explore: {}\n", "harness explore")],
)
def test_the_other_command_is_named_where_one_does_not_fit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: str,
    explore: str,
    hint: str,
) -> None:
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.yaml"
    path.write_text(FILE + explore)
    assert command.main([word, str(path)]) == command.BAD_INPUT
    assert hint in capsys.readouterr().err
