"""Real jobs: what is drawn runs, what it struck is noted, mutants are found and shrunk."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.judge.outcome import Outcome
from harness.run.services import Services
from harness.scenario.read import check_source
from harness.scenario.schema import Scenario
from harness.scenario.source import parse_source
from harness.search import scenarios as scenarios_module
from harness.search.generate.attempt import attempt, describe_failure, without_unfired
from harness.search.generate.candidates import read_candidates
from harness.search.generate.coverage import read_coverage
from harness.search.generate.stream import job_of, scenario_of
from harness.search.scenarios import failure_file, plan_of, try_scenario
from harness.search.shrink.reduce import reduce_failure
from harness.search.shrink.runner import Alone
from tests.harness.proving import bench_of
from tests.mutants.large import LARGE, Large, measure


def test_a_generated_scenario_runs_and_what_it_struck_is_noted(
    services: Services, tmp_path: Path
) -> None:
    bench = bench_of(services, tmp_path)
    found = attempt(bench, SEED, 1)
    assert (found.came, found.signature) == ("passed", None)
    assert {cell.mode for cell in read_coverage(bench.workspace.failures)} == {
        "async_with_pinned_mem"
    }
    assert list(bench.workspace.root.iterdir()) == []


SEED = 1


def test_a_baseline_trace_offers_points_in_every_save(services: Services, tmp_path: Path) -> None:
    bench = bench_of(services, tmp_path)
    candidates = read_candidates(bench.baseline(plan_of(bench, job_of(SEED, 1))))
    assert {one.named.phase for one in candidates.of_save(1)} >= {
        "stage",
        "flush",
        "seal",
        "publish",
    }
    assert "*.distcp" in candidates.files
    assert candidates.leftovers == ("staging", "link")


def test_a_job_that_fails_on_its_own_is_reported_once_and_shrunk(
    services: Services, tmp_path: Path
) -> None:
    bench = bench_of(services, tmp_path, "tests.mutants.publishing:WritesInPlace")
    first, second = attempt(bench, SEED, 1), attempt(bench, SEED, 2)
    assert second.reason == "its job fails although nothing strikes it"
    assert first.signature is not None
    assert first.signature.broken == "whole_or_absent"
    large = failure_file(first.scenario, bench.workspace)
    assert large.exists()
    report = describe_failure(first, bench, seconds=300)
    assert "  - {until_step: 2}" in report
    assert not large.exists()
    (file,) = bench.workspace.failures.glob("*.yaml")
    head = file.read_text(encoding="utf-8").splitlines()
    assert head[0] == "# HARD_FAIL"
    assert any(line.startswith("# whole_or_absent is violated") for line in head)


SHRUNK = ("NeverRecovers", "LeavesLatestToOthers")
"""A failing storage, and one of two effects."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", [one for one in LARGE if str(one) in SHRUNK], ids=str)
def test_a_mutant_becomes_as_small_as_is_known_to_be_enough(
    case: Large, services: Services, tmp_path: Path
) -> None:
    bench = bench_of(services, tmp_path, case.bug.implementation)
    found = reduce_failure(case.scenario, case.signature, Alone(bench), seconds=500)
    assert found.proof is not None
    assert measure(found.scenario) == case.smallest


def test_a_scenario_that_this_machine_cannot_run_is_skipped_and_the_same_as_elsewhere(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def missing_disk(filesystem: str | None) -> str:
        asked.append(filesystem)
        return "a power cut on ext4 needs root, to mount an image"

    monkeypatch.setattr(scenarios_module, "missing_disk", missing_disk)
    bench = bench_of(services, tmp_path)
    found = attempt(bench, SEED, 1)
    assert (found.came, found.reason) == ("skipped", missing_disk(None))
    baseline = bench.baseline(plan_of(bench, job_of(SEED, 1)))
    assert found.scenario == scenario_of(SEED, 1, read_candidates(baseline))
    assert asked[0] is None
    assert not bench.workspace.root.exists()


MISSES = """\
name: the second save never comes to pruning
runs:
  - until_step: 4
    faults:
      - {delay: {rank: 0, seconds: 0.1}, at: {save: 1, phase: flush}}
      - {kill: {rank: all}, at: {save: 1, phase: prune}}
  - {until_step: 4}
"""


def test_a_strike_that_never_fired_can_be_left_out(services: Services, tmp_path: Path) -> None:
    scenario: Scenario = check_source(parse_source(MISSES, shown="a"), gpus=0)
    trial = try_scenario(bench_of(services, tmp_path), scenario)
    assert trial.judgement.outcome is Outcome.INVALID
    (left,) = without_unfired(scenario, trial.evidence).runs[0].faults
    assert left == scenario.runs[0].faults[0]
