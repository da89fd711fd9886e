"""What a job takes is decided by its plan and by the machine, not by what is free just now."""

from __future__ import annotations

from typing import Any

import pytest

from harness.plan.make import make_plan, reference_plan
from harness.plan.model import Gpus, Implementation, Plan
from harness.plan.place import Need, lacks_collectives, need_of, place_plan
from harness.scenario.schema import Scenario

SECOND = {"second_job": {"rank": 0, "refused": "Lock"}, "at": {"step": 1}}


def plan_of(world: dict[str, int], *runs: dict[str, Any], device: str = "cuda") -> Plan:
    scenario = Scenario.model_validate(
        {
            "name": "a",
            "device": device,
            "world": world,
            "runs": ({"until_step": 4}, *({"until_step": 4, **run} for run in runs)),
        }
    )
    return make_plan(scenario, source="a.yaml", implementation=Implementation())


def placed(plan: Plan, *, present: int, jobs: int = 1, sharing: str = "gloo") -> Gpus | None:
    return place_plan(plan, present=present, jobs=jobs, sharing=sharing).workload.gpus


@pytest.mark.parametrize(
    ("present", "jobs", "count", "memory"),
    [(8, 1, 4, 0.9), (4, 2, 4, 0.45), (2, 1, 2, 0.45), (3, 1, 3, 0.45), (1, 1, 1, 0.225),
     (1, 4, 1, 0.056)],
)  # fmt: skip
def test_ranks_share_gpus_and_their_memory_where_there_are_fewer(
    present: int, jobs: int, count: int, memory: float
) -> None:
    found = placed(plan_of({"dp_shard": 4}), present=present, jobs=jobs)
    assert found == Gpus(count=count, memory=memory, sharing="gloo")


def test_a_second_job_halves_the_memory_of_the_first() -> None:
    plan = plan_of({"dp_shard": 2}, {"faults": (SECOND,)})
    assert placed(plan, present=2) == Gpus(count=2, memory=0.45, sharing="gloo")
    assert need_of(plan).ranks == 4


def test_the_largest_world_of_a_plan_decides() -> None:
    plan = plan_of({"pp": 1, "dp_shard": 2}, {"world": {"dp_shard": 4}, "refused": "x"})
    found = place_plan(plan, present=8, jobs=1, sharing="gloo")
    assert need_of(found) == Need(ranks=4, memory_mib=4 * 2048, gpus=4)
    assert reference_plan(found).workload.gpus == found.workload.gpus


def test_a_plan_keeps_the_place_that_it_had() -> None:
    plan = place_plan(plan_of({"dp_shard": 2}), present=2, jobs=1, sharing="gloo")
    assert place_plan(plan, present=1, jobs=3, sharing="nccl_hostid") == plan


def test_a_plan_on_the_cpu_takes_ranks_and_memory_and_no_gpu() -> None:
    plan = plan_of({"pp": 2, "dp_shard": 2}, device="cpu")
    assert place_plan(plan, present=8, jobs=1, sharing="gloo") == plan
    assert need_of(plan) == Need(ranks=4, memory_mib=4 * 256, gpus=0)


@pytest.mark.parametrize(
    ("world", "present", "sharing"),
    [
        ({"pp": 2}, 1, "nccl_hostid"),
        ({"pp": 2, "dp_shard": 2}, 2, "nccl_hostid"),
        ({"pp": 2}, 2, "gloo"),
        ({"dp_shard": 4}, 1, "gloo"),
    ],
)
def test_ranks_that_share_a_gpu_talk_over_nccl_where_gloo_lacks_what_they_need(
    world: dict[str, int], present: int, sharing: str
) -> None:
    found = placed(plan_of(world), present=present, sharing="auto")
    assert found is not None
    assert found.sharing == sharing


@pytest.mark.parametrize(
    ("world", "present", "sharing", "lacks"),
    [
        ({"pp": 2}, 1, "gloo", "pp2 x fsdp1 on 1 GPU: stages send tensors from rank to rank"),
        ({"pp": 2}, 1, "nccl_hostid", None),
        ({"pp": 2}, 2, "gloo", None),
        ({"dp_shard": 2}, 1, "gloo", None),
    ],
)
def test_stages_that_share_a_gpu_need_a_backend_that_sends(
    world: dict[str, int], present: int, sharing: str, lacks: str | None
) -> None:
    found = place_plan(plan_of(world), present=present, jobs=1, sharing=sharing)
    reason = lacks_collectives(found)
    assert reason == lacks or (reason is not None and lacks is not None and lacks in reason)
