"""The machine's resources for jobs, in the units that the broker counts.

Stated, not measured while jobs run: four ranks for each processor, at least eight, and four fifths
of the memory. Ranks wait for each other most of the time, so two jobs of two ranks per processor
keep it busy; eight ranks are the largest job of any scenario. Environment variables override these
numbers:

    KEMPNERFORGE_RANKS=N             ranks at once, of all sessions together
    KEMPNERFORGE_GPU_JOBS=N          jobs at once on one GPU (1)
    KEMPNERFORGE_GPU_SHARING=auto    how ranks on one GPU talk: gloo, nccl_hostid, or as needed
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.plan.model import Plan
from harness.plan.place import lacks_collectives, place_plan
from harness.scenario.devices import AUTO, SHARING, usable_gpus
from harness.system.errors import HarnessError

RANKS_PER_PROCESSOR = 4
LEAST_RANKS = 8
_MEMORY_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The resources. `gpus` are names for `CUDA_VISIBLE_DEVICES`; `memory_mib` is host memory."""

    ranks: int
    memory_mib: int
    gpus: tuple[str, ...] = ()
    gpu_jobs: int = 1
    gpu_sharing: str = AUTO

    def place(self, plan: Plan) -> Plan:
        """Returns the plan with the GPUs that it gets here."""
        return place_plan(
            plan, present=len(self.gpus), jobs=self.gpu_jobs, sharing=self.gpu_sharing
        )

    def lacks(self, plan: Plan) -> str | None:
        """Returns why the plan cannot run on the GPUs of this machine, or None."""
        if plan.workload.device == "cpu":
            return None
        if not self.gpus:
            return "device: cuda, and there is no GPU here that this torch can use"
        return lacks_collectives(self.place(plan))


def this_machine(root: Path = Path("/")) -> Machine:
    """Returns the machine as this process can use it; `root` is where its file system begins."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    sharing = os.environ.get("KEMPNERFORGE_GPU_SHARING", AUTO)
    if sharing not in (AUTO, *SHARING):
        known = ", ".join((AUTO, *SHARING))
        raise HarnessError(f"KEMPNERFORGE_GPU_SHARING is {sharing!r}; possible: {known}")
    return Machine(
        ranks=_number("KEMPNERFORGE_RANKS", max(LEAST_RANKS, RANKS_PER_PROCESSOR * processors)),
        memory_mib=int(_memory_bytes(root) * _MEMORY_SHARE) >> 20,
        gpus=usable_gpus(),
        gpu_jobs=_number("KEMPNERFORGE_GPU_JOBS", 1),
        gpu_sharing=sharing,
    )


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise HarnessError(f"{variable} is {text!r}; possible: a whole number from 1")
    return int(text)


def _memory_bytes(root: Path) -> int:
    """Returns the smaller of the machine's memory and the container's limit (its control group)."""
    found = [
        limit
        for name, read in _LIMITS.items()
        if (root / name).is_file() and (limit := read((root / name).read_text())) is not None
    ]
    return min(found, default=1 << 33)


def _of_machine(text: str) -> int | None:
    lines = (line.split() for line in text.splitlines())
    return next((int(words[1]) << 10 for words in lines if words[0] == "MemTotal:"), None)


def _of_group(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


_LIMITS: dict[str, Callable[[str], int | None]] = {
    "proc/meminfo": _of_machine,
    "sys/fs/cgroup/memory.max": _of_group,
    "sys/fs/cgroup/memory/memory.limit_in_bytes": _of_group,
}
