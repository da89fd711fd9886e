"""A plan decides everything: device, ranks, points and names."""

from __future__ import annotations

from typing import Any

import pytest

from harness.plan.make import make_plan, reference_plan
from harness.plan.model import Implementation, Plan
from harness.scenario.schema import Scenario

BASE: dict[str, Any] = {"name": "a", "world": {"dp_shard": 2}, "runs": ({"until_step": 6},)}


def plan_of(changes: dict[str, Any], *, gpus: int = 0) -> Plan:
    scenario = Scenario.model_validate({**BASE, **changes})
    return make_plan(scenario, source="a.yaml", implementation=Implementation(), gpus=gpus)


def plan_faults(*faults: dict[str, Any]) -> Plan:
    return plan_of({"runs": ({"until_step": 6}, {"until_step": 8, "faults": faults})})


@pytest.mark.parametrize(
    ("device", "gpus", "decided"),
    [("auto", 0, "cpu"), ("auto", 1, "cpu"), ("auto", 2, "cuda"), ("cpu", 8, "cpu"),
     ("cuda", 0, "cuda")],
)  # fmt: skip
def test_auto_takes_gpus_where_each_rank_has_its_own(device: str, gpus: int, decided: str) -> None:
    assert plan_of({"device": device}, gpus=gpus).workload.device == decided


def test_the_longest_run_decides_the_schedule() -> None:
    plan = plan_of({"runs": ({"until_step": 4}, {"until_step": 9}, {"until_step": 6})})
    assert plan.workload.total_steps == 9
    assert [run.until_step for run in plan.runs] == [4, 9, 6]
    assert {run.deadline_s for run in plan.runs} == {None}


@pytest.mark.parametrize(
    ("fault", "name", "ranks", "at_rank"),
    [
        (
            {
                "kill": {"rank": 1},
                "at": {"save": 2, "phase": "flush", "operation": "write", "nth": 2},
            },
            "run1.kill-rank1-save2-flush-write-2-before",
            (1,),
            1,
        ),
        (
            {"kill": {}, "at": {"save": 1, "path": "*/pp[01]/.metadata", "when": "after"}},
            "run1.kill-all-save1-_pp_01_.metadata-1-after",
            (0, 1),
            0,
        ),
        (
            {"kill": {"rank": 0}, "at": {"rank": 1, "save": 1, "phase": "seal"}},
            "run1.kill-rank0-at-rank1-save1-seal-1-before",
            (0,),
            1,
        ),
        ({"kill": {}, "at": {"phase": "load"}}, "run1.kill-all-load-1-before", (0, 1), 0),
        ({"sigterm": {}, "at": {"step": 3}}, "run1.sigterm-all-step3", (0, 1), 0),
        ({"kill": {"rank": 1}, "at": {"during": "loading"}}, "run1.kill-rank1-loading", (1,), 1),
        (
            {"sigterm": {}, "at": {"during": "evaluation", "nth": 2}},
            "run1.sigterm-all-evaluation-2",
            (0, 1),
            0,
        ),
        (
            {"kill": {"rank": 1}, "at": {"step": 3, "once_published": True}},
            "run1.kill-rank1-step3-once-published",
            (1,),
            1,
        ),
    ],
)
def test_a_strike_is_named_by_what_it_does(
    fault: dict[str, Any], name: str, ranks: tuple[int, ...], at_rank: int
) -> None:
    (strike,) = plan_faults(fault).runs[1].strikes
    assert (strike.id, strike.ranks, strike.point.rank) == (name, ranks, at_rank)


def test_equal_strikes_have_names_of_their_own() -> None:
    fault = {"sigterm": {}, "at": {"step": 3}}
    ids = [strike.id for strike in plan_faults(fault, fault, fault).runs[1].strikes]
    assert ids == ["run1.sigterm-all-step3", "run1.sigterm-all-step3~2", "run1.sigterm-all-step3~3"]


@pytest.mark.parametrize(
    ("seconds", "timeout_s", "stalls"),
    [(4.0, 4.0, True), (4.0, 3.0, True), (3.9, 4.0, False), (600.0, None, False)],
)
def test_a_delay_as_long_as_the_deadline_may_cost_the_save(
    seconds: float, timeout_s: float | None, *, stalls: bool
) -> None:
    delay = {"delay": {"rank": 1, "seconds": seconds}, "at": {"save": 1, "operation": "write"}}
    plan = plan_of(
        {"checkpoint": {"timeout_s": timeout_s}, "runs": ({"until_step": 6, "faults": (delay,)},)}
    )
    assert [one.fault.stalls(timeout_s) for one in plan.runs[0].strikes] == [stalls]


def test_a_plan_comes_back_from_its_json() -> None:
    plan = plan_faults(
        {"kill": {"rank": 1}, "at": {"save": 1, "phase": "seal"}},
        {"exit": {}, "at": {"during": "ending"}},
    )
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_the_reference_trains_the_same_without_saves_or_strikes() -> None:
    plan = plan_faults({"kill": {}, "at": {"step": 2}})
    reference = reference_plan(plan)
    assert reference.workload == plan.workload
    assert reference.checkpoint is None
    assert [(run.until_step, run.strikes) for run in reference.runs] == [(8, ())]


def test_plans_that_train_alike_share_a_reference() -> None:
    plan = plan_of({})
    other = plan_of({"name": "b", "checkpoint": {"interval": 3}})
    assert reference_plan(plan) == reference_plan(other)
    assert plan.reference_key() == other.reference_key()
    assert plan.reference_key() != plan_of({"seed": 1}).reference_key()
