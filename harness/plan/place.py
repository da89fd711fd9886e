"""Decides where a plan can run, and what that takes: processes, memory, GPUs. Pure, like the plan.

The decision depends on the machine and on the plan alone, never on what is free just now: a job
that ran on two GPUs would not be the same job on one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

from harness.plan.model import Gpus, Plan
from harness.scenario.devices import AUTO
from harness.world import World

CPU_RANK_MIB = 256
"""Host memory. Warm ranks were measured at 53 to 133 MB; the rest is for what they write."""
CUDA_RANK_MIB = 2048
"""Host memory. `ps` showed 1.2 to 1.6 GB a rank on an H200, most of it shared libraries."""
FILLED = 0.9
"""The fraction of a GPU that ranks can fill. The rest is for their CUDA contexts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The resources of a running job. `memory_mib` is host memory."""

    ranks: int
    memory_mib: int
    gpus: int


def need_of(plan: Plan) -> Need:
    """Returns what the largest of the runs needs."""
    ranks = most_ranks(plan)
    each = CPU_RANK_MIB if plan.workload.device == "cpu" else CUDA_RANK_MIB
    gpus = 0 if plan.workload.gpus is None else plan.workload.gpus.count
    return Need(ranks=ranks, memory_mib=ranks * each, gpus=gpus)


def most_ranks(plan: Plan) -> int:
    """Returns how many ranks live at once, including those of a second job."""
    return max(
        plan.workload_of(number).world.size
        * (2 if any(strike.fault.second_host for strike in run.strikes) else 1)
        for number, run in enumerate(plan.runs)
    )


def place_plan(plan: Plan, *, present: int, jobs: int, sharing: str) -> Plan:
    """Returns the plan with its GPUs decided, on a machine with `present` GPUs.

    `jobs` is how many jobs can share a GPU, `sharing` how the ranks of one job communicate on it,
    or `auto`. A plan that was placed before keeps its place, so that a replay is exact.
    """
    if plan.workload.device == "cpu" or plan.workload.gpus is not None or present == 0:
        return plan
    largest = max(plan.workload_of(number).world.size for number in range(len(plan.runs)))
    count = min(largest, present)
    on_one = ceil(largest / count) * ceil(most_ranks(plan) / largest)
    memory = floor(1000 * FILLED / (jobs * on_one)) / 1000
    if sharing == AUTO:
        sharing = "gloo" if _sharing_stages(plan, count) is None else "nccl_hostid"
    gpus = Gpus(count=count, memory=memory, sharing=sharing)
    return plan.model_copy(update={"workload": plan.workload.model_copy(update={"gpus": gpus})})


def lacks_collectives(plan: Plan) -> str | None:
    """Returns why this plan cannot run on the GPUs that it has been given, or None."""
    gpus = plan.workload.gpus
    if gpus is None or gpus.sharing != "gloo":
        return None
    world = _sharing_stages(plan, gpus.count)
    if world is None:
        return None
    return (
        f"{world} on {gpus.count} GPU: stages send tensors from rank to rank, and gloo "
        "cannot send tensors that are on a GPU"
    )


def _sharing_stages(plan: Plan, count: int) -> World | None:
    """Returns the first world of the plan in which stages share GPUs."""
    worlds = (plan.workload_of(number).world for number in range(len(plan.runs)))
    return next((world for world in worlds if world.size > count and world.pp > 1), None)
