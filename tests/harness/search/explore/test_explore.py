"""Explorations of real jobs: what merging leaves out finds nothing else, and failures replay."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from harness.evidence.read import read_evidence
from harness.judge.judge import Judgement
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.prove import Proof
from harness.prove import prove as prove_plan
from harness.run.services import Services
from harness.scenario.errors import ScenarioError
from harness.scenario.exploration import Explore
from harness.scenario.read import read_file
from harness.scenario.schema import Checkpoint, Run, Scenario
from harness.search.explore import explore as explore_module
from harness.search.explore.explore import RedBaseline, choose_points, ends, strike_until_clean
from harness.search.explore.job import Explored
from harness.search.explore.part import explore_part
from harness.search.explore.points import Candidate, nth_of_rank
from harness.search.explore.strike import StrikeOutcome, strike
from harness.search.explore.summary import describe_summary
from harness.trial import Bench
from harness.world import World
from tests.harness.proving import bench_of


def job_of(*, on_error: Any = "end", **explore: Any) -> Explored:
    """One save of two ranks, and a resume."""
    scenario = Scenario(
        name="explore: a test: one save (fsdp2)",
        seed=12,
        world=World(dp_shard=2),
        checkpoint=Checkpoint(interval=2, on_error=on_error),
        runs=(Run(until_step=2), Run(until_step=4)),
        explore=Explore(**explore),
    )
    return Explored(scenario=scenario, shown="a.yaml")


def test_equal_points_have_one_outcome_and_merging_hides_no_mutant(
    services: Services, tmp_path: Path
) -> None:
    bench = bench_of(services, tmp_path, "tests.mutants.recovery:ChokesOnAnEmptyDescription")
    job = job_of(phases=("seal",), ranks=(0,))
    full = choose_points(bench, job, merge=False)
    merged = choose_points(bench, job)
    outcomes: dict[tuple[object, ...], set[str]] = defaultdict(set)
    members: dict[tuple[object, ...], int] = defaultdict(int)
    for candidate in full.chosen:
        struck = strike(bench, job, candidate)
        outcomes[candidate.same].add(struck.proof.outcome)
        members[candidate.same] += 1

    assert all(len(found) == 1 for found in outcomes.values()), outcomes
    assert {one.same for one in merged.chosen} == outcomes.keys()
    red = [same for same, found in outcomes.items() if found == {"HARD_FAIL"}]
    assert [members[same] for same in red] == [2], outcomes


def test_the_nth_failure_ends_with_a_clean_run_and_its_failure_replays_alone(
    services: Services, tmp_path: Path
) -> None:
    bench = bench_of(services, tmp_path, "tests.mutants.storage:OneRankKnows")
    job = job_of(
        on_error="go_on",
        strikes="nth_failure",
        operation="mkdir",
        ranks=(0,),
        faults=("fail_once",),
    )
    choice = choose_points(bench, job)
    struck = [strike(bench, job, one) for one in choice.chosen]
    (end,) = ends(job, choice)
    clean = strike_until_clean(bench, job, end)

    assert all(one.fired for one in struck)
    assert [(one.fired, one.proof.outcome) for one in clean] == [(False, "PASS")]
    red = [one.proof.outcome for one in struck if one.proof.outcome != "PASS"]
    assert red
    (failure, *_) = sorted(bench.workspace.failures.glob("*.yaml"))
    assert "mkdir" in failure.read_text()
    assert 'path: "*"' not in failure.read_text()
    found = read_file(failure, gpus=0)[""]
    assert not isinstance(found, ScenarioError)
    assert found.scenario.explore is None
    plan = make_plan(found.scenario, source="x", implementation=bench.implementation)
    again = prove_plan(bench, plan, found.source)
    assert again.outcome in red


def test_of_a_scenario_that_is_red_unstruck_only_what_is_new_is_reported(
    services: Services, tmp_path: Path
) -> None:
    bench = bench_of(services, tmp_path, "tests.mutants.upkeep:LeavesAThread")
    summary = explore_part(bench, job_of(budget=2), 0, 1)
    assert (summary.choice.broken, summary.choice.outcome) == (("clean",), Outcome.LEAK)
    assert [one.fired for one in summary.struck] == [True, True]
    assert {one.proof.outcome for one in summary.struck} == {Outcome.LEAK}
    assert (summary.red, summary.is_green, summary.outcome) == ((), False, Outcome.LEAK)
    assert "without a strike it is LEAK (clean); only strikes" in describe_summary(summary)
    assert not list(bench.workspace.failures.glob("*.yaml"))


def test_a_scenario_that_proves_nothing_unstruck_is_not_struck_and_its_run_is_kept(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(services, tmp_path)
    nothing = Judgement(outcome=Outcome.INVALID, verdicts=(), guards=())
    monkeypatch.setattr(explore_module, "judge", lambda _: nothing)
    with pytest.raises(RedBaseline, match="nothing strikes it, and it proves nothing") as error:
        choose_points(bench, job_of())
    (line,) = [one for one in str(error.value).splitlines() if one.startswith("evidence: ")]
    assert read_evidence(Path(line.removeprefix("evidence: "))).runs


def test_the_package_survives_the_first_and_the_last_point(
    services: Services, tmp_path: Path
) -> None:
    bench = bench_of(services, tmp_path)
    job = job_of(faults=("kill_all", "kill"))
    points = choose_points(bench, job).chosen
    for candidate in (points[0], points[-1]):
        struck = strike(bench, job, candidate)
        assert (struck.fired, struck.proof.outcome) == (True, Outcome.PASS), struck.proof.text


def test_a_point_that_never_comes_is_red(services: Services, tmp_path: Path) -> None:
    bench, job = bench_of(services, tmp_path), job_of()
    never = nth_of_rank(job.explore, "kill_all", 0, 9999)
    struck = strike(bench, job, never)
    assert (struck.fired, struck.proof.outcome) == (False, Outcome.INVALID)


def test_ever_larger_n_are_struck_until_one_does_not_fire(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[int] = []

    def fake(bench: Bench, job: Explored, candidate: Candidate, known: object) -> StrikeOutcome:
        tried.append(candidate.at.nth)
        fired = candidate.at.nth < 6
        return StrikeOutcome(name="x", fired=fired, proof=Proof(outcome=Outcome.PASS))

    monkeypatch.setattr("harness.search.explore.explore.strike", fake)
    job = job_of(strikes="nth_failure")
    end = nth_of_rank(job.explore, "fail_once", 0, 4)
    with Services(tmp_path / "services") as unused:
        found = strike_until_clean(bench_of(unused, tmp_path), job, end)
    assert (tried, len(found)) == ([4, 5, 6], 3)
