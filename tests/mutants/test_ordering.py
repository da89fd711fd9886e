"""Managers that only lack an order are accused of it, by its name; correct ones are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.crash.explore import Exploration, explore
from harness.crash.profiles import PROFILES, ProfileName
from harness.crash.resume import resume
from harness.evidence.evidence import Evidence
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.schema import Checkpoint, Run, Scenario
from harness.world import World
from tests.harness.proving import ROOT, bench_of
from tests.mutants.catalogue import CONTROLS, MISORDERED, Misordered

_MOST = 32
"""An eighth of what a user gets: enough for every order that is missing here."""

_FSDP, _STAGES = World(dp_shard=2), World(pp=2, dp_shard=2)
_CONTROLS = [
    (manager, world, mode)
    for manager in (None, CONTROLS[0])
    for world, mode in (
        (_FSDP, "disabled"),
        (_FSDP, "async"),
        (_FSDP, "async_with_pinned_mem"),
        (_STAGES, "disabled"),
        (_STAGES, "async"),
    )
    # The simple manager saves in one way only.
    if manager is None or mode == "disabled"
]


def run_job(
    folder: Path, services: Services, manager: str | None, checkpoint: Checkpoint, world: World
) -> Evidence:
    """Two starts, four saves, and deletions in between."""
    scenario = Scenario(
        name="crash states",
        world=world,
        checkpoint=checkpoint,
        runs=(Run(until_step=4), Run(until_step=8)),
    )
    chosen = Implementation()
    if manager is not None:
        chosen = Implementation(name=manager, path=str(ROOT))
    plan = make_plan(scenario, source="", implementation=chosen)
    return execute(plan, folder / "run", services)


def sentences(found: Exploration) -> set[tuple[str, str]]:
    """What is said, without the numbers of ranks, operations and steps."""
    return {
        (
            hit.cause.fault.property,
            re.sub(r"(step[_ ])\d+", r"\1N", re.sub(r" \(rank[^)]*\)", "", hit.cause.sentence)),
        )
        for hit in found.hits
    }


@pytest.mark.parametrize("bug", MISORDERED, ids=str)
def test_a_missing_order_is_named(bug: Misordered, services: Services, tmp_path: Path) -> None:
    checkpoint = Checkpoint(keep_last_n=1)
    evidence = run_job(tmp_path, services, bug.implementation, checkpoint, _FSDP)

    for profile in PROFILES.values():
        found = explore(evidence, profile=profile.name, most=_MOST)
        if profile.name in bug.says:
            assert bug.says[profile.name] in sentences(found)
            assert found.outcome in (Outcome.HARD_FAIL, Outcome.LOST_WORK)
            assert all(hit.cause.operations for hit in found.hits)
        else:
            assert (found.outcome, sentences(found)) == (Outcome.PASS, set())


@pytest.mark.parametrize(
    ("manager", "world", "mode"), _CONTROLS, ids=lambda value: str(value).partition(":")[2] or None
)
def test_a_control_lacks_no_order(
    manager: str | None, world: World, mode: str, services: Services, tmp_path: Path
) -> None:
    checkpoint = Checkpoint.model_validate({"keep_last_n": 1, "async_mode": mode})
    evidence = run_job(tmp_path, services, manager, checkpoint, world)

    profile: ProfileName
    for profile in ("ordered", "posix"):
        found = explore(evidence, profile=profile, most=_MOST)
        assert (found.outcome, sentences(found)) == (Outcome.PASS, set())
        assert found.distinct > 100


def test_the_job_starts_again_from_each_of_its_crash_states(
    services: Services, tmp_path: Path
) -> None:
    checkpoint = Checkpoint.model_validate({"async_mode": "async"})
    evidence = run_job(tmp_path, services, None, checkpoint, _FSDP)
    found = explore(evidence, most=_MOST)
    places = range(0, len(found.resumable), len(found.resumable) // 6)

    bench = bench_of(services, tmp_path)
    outcomes = [
        resume(bench, found.resumable[place], found, evidence).judgement.outcome for place in places
    ]

    assert len(outcomes) >= 6
    assert set(outcomes) == {"PASS"}


def test_a_start_from_a_state_that_lost_a_shard_is_red(services: Services, tmp_path: Path) -> None:
    manager = "tests.mutants.ordering:ForgetsOneShard"
    evidence = run_job(tmp_path, services, manager, Checkpoint(), _FSDP)
    found = explore(evidence, profile="ordered", most=_MOST)
    state = next(one for one in found.resumable if one.faults and one.faults[0].name == "step_2"
                 and one.faults[0].property == "latest_durable")  # fmt: skip

    judgement = resume(bench_of(services, tmp_path), state, found, evidence).judgement

    violated = {one.property for one in judgement.verdicts if one.state == "violated"}
    assert {"latest_durable", "whole_or_absent"} <= violated
    assert judgement.outcome == "HARD_FAIL"
