"""A cluster of SLURM's own daemons runs jobs, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.run.launch import cluster as cluster_module
from harness.run.launch.cluster import Cluster, missing


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    found = Cluster(tmp_path / "cluster")
    found.start()
    try:
        yield found
    finally:
        found.close()


def _run(cluster: Cluster, *command: str) -> str:
    environment = {**os.environ, "SLURM_CONF": str(cluster.configuration)}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_it_runs_the_tasks_of_a_job_each_with_its_number(cluster: Cluster) -> None:
    told = _run(cluster, "srun", "--ntasks=2", "printenv", "SLURM_PROCID")
    assert sorted(told.split()) == ["0", "1"]


def test_a_job_that_is_cancelled_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\nsleep 600\n")
    _run(cluster, "sbatch", "--job-name=one", f"--output={tmp_path}/one.log", str(script))
    cluster.cancel("one")
    assert _run(cluster, "squeue", "--noheader", "--format=%j") == ""


def test_a_time_limit_is_set_to_two_minutes_from_now(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\nsleep 600\n")
    output = f"--output={tmp_path}/one.log"
    _run(cluster, "sbatch", "--job-name=one", "--time=60", output, str(script))
    cluster.expire("one")
    assert _run(cluster, "squeue", "--noheader", "--format=%l").strip() == "2:00"


def test_nothing_of_it_is_left_when_it_is_closed(tmp_path: Path) -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    found = Cluster(tmp_path / "cluster")
    found.start()
    daemons = [daemon.pid for daemon in found.daemons]
    assert len(daemons) == 3

    found.close()

    assert not (tmp_path / "cluster").exists()
    assert [pid for pid in daemons if Path(f"/proc/{pid}").exists()] == []


def test_what_is_not_installed_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_find", lambda name: None if name == "slurmd" else name)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    missing.cache_clear()
    try:
        assert missing() == (
            "slurmd not found; Debian has them in the packages slurmctld slurmd slurm-client munge"
        )
        missing.cache_clear()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert missing() == "a SLURM cluster of its own needs root, as slurmd does"
    finally:
        missing.cache_clear()


def test_its_ports_are_none_that_the_kernel_gives_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = tmp_path / "range"
    monkeypatch.setattr(cluster_module, "_PORTS_FOR_ALL", given)
    given.write_text("12000\t60999\n", encoding="ascii")
    assert all(port < 12_000 for _ in range(20) for port in cluster_module._free_ports())
    given.write_text("1024\t65000\n", encoding="ascii")  # leaves none below
    one, other = cluster_module._free_ports()
    assert one != other
