"""What a machine has is read from it, and can be stated otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.plan.place import place_plan
from harness.run import machine as module
from harness.run import support
from harness.run.machine import Machine, this_machine
from harness.system.errors import HarnessError
from tests.harness.proving import plan_of

PLAN = plan_of("gpu/ranks-share-a-gpu.yaml::dp_shard2")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANKS", "GPU_JOBS", "GPU_SHARING"):
        monkeypatch.delenv(f"KEMPNERFORGE_{name}", raising=False)
    monkeypatch.setattr(module, "usable_gpus", lambda: ("0", "3"))


def put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("group", "expected"), [(None, 16000), ("max", 16000), ("2147483648", 1638)]
)
def test_memory_is_that_of_the_machine_or_what_its_container_may_have(
    tmp_path: Path, group: str | None, expected: int
) -> None:
    put(tmp_path, "proc/meminfo", "MemFree: 5 kB\nMemTotal: 20480000 kB\n")
    if group is not None:
        put(tmp_path, "sys/fs/cgroup/memory.max", f"{group}\n")
    assert this_machine(tmp_path).memory_mib == expected


@pytest.mark.parametrize(("processors", "ranks"), [(1, 8), (2, 8), (16, 64)])
def test_a_processor_is_for_four_ranks_and_the_largest_job_always_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processors: int, ranks: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    assert this_machine(tmp_path).ranks == ranks


def test_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEMPNERFORGE_RANKS", "3")
    monkeypatch.setenv("KEMPNERFORGE_GPU_JOBS", "4")
    monkeypatch.setenv("KEMPNERFORGE_GPU_SHARING", "nccl_hostid")
    found = this_machine(tmp_path)
    assert (found.ranks, found.gpus, found.gpu_jobs) == (3, ("0", "3"), 4)
    assert found.gpu_sharing == "nccl_hostid"


@pytest.mark.parametrize(
    ("variable", "text", "known"),
    [
        ("RANKS", "0", "a whole number from 1"),
        ("GPU_JOBS", "two", "a whole number from 1"),
        ("GPU_SHARING", "mps", "auto, gloo, nccl_hostid"),
    ],
)
def test_what_the_environment_says_wrongly_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, known: str
) -> None:
    monkeypatch.setenv(f"KEMPNERFORGE_{variable}", text)
    with pytest.raises(
        HarnessError, match=f"KEMPNERFORGE_{variable} is '{text}'; possible: {known}"
    ):
        this_machine()


def test_a_plan_on_gpus_lacks_one_where_there_is_none_and_else_takes_them() -> None:
    none, two = (Machine(ranks=8, memory_mib=100, gpus=gpus) for gpus in ((), ("0", "3")))
    assert none.lacks(PLAN) == "device: cuda, and there is no GPU here that this torch can use"
    assert two.lacks(PLAN) is None
    assert two.place(PLAN) == place_plan(PLAN, present=2, jobs=1, sharing="gloo")


def test_a_scenario_skips_with_what_its_gpus_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "missing", lambda: None)
    monkeypatch.setattr(module, "usable_gpus", lambda: ("0",))
    stages = plan_of("gpu/ranks-share-a-gpu.yaml::pp2")
    assert support.missing_for(stages) is None
    monkeypatch.setenv("KEMPNERFORGE_GPU_SHARING", "gloo")
    assert "gloo cannot send tensors that are on a GPU" in str(support.missing_for(stages))
