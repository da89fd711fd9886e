"""A cluster of SLURM's own daemons runs jobs, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.run.launch import cluster as cluster_module
from harness.run.launch.cluster import Cluster, missing
from harness.system.errors import HarnessError


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
    described = _run(cluster, "srun", "--ntasks=2", "printenv", "SLURM_PROCID")
    assert sorted(described.split()) == ["0", "1"]


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


_TOOL = """\
#!/bin/sh
if [ "${0##*/}" != squeue ]; then
    echo "${0##*/}" "$@" >> "$CALLS"
    exit 0
fi
read -r next < "$ANSWERS" || exit 1
sed -i 1d "$ANSWERS"
test -z "$next" || exit 1
test -e "$CALLS" && exit 0
case "$*" in *%M*) echo "7 0:05" ;; *) echo 7 ;; esac
"""


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each time that `squeue` is asked: one with a word in it is an error.

    It tells of job 7 until another command was called, which `calls` beside it lists.
    """
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("squeue", "scontrol", "scancel"):
        tools.joinpath(name).write_text(_TOOL)
        tools.joinpath(name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ANSWERS", str(tmp_path / "answers"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(cluster_module, "_LOOK_EVERY_S", 0.0)
    return tmp_path / "answers"


def test_a_controller_that_does_not_answer_for_a_while_is_asked_again(
    answers: Path, tmp_path: Path
) -> None:
    answers.write_text("fails\nfails\n\n")
    Cluster(tmp_path).expire("one")
    assert (tmp_path / "calls").read_text() == "scontrol update JobId=7 TimeLimit=2\n"
    (tmp_path / "calls").unlink()

    answers.write_text("fails\n\nfails\n\n")
    Cluster(tmp_path).cancel("one")
    assert (tmp_path / "calls").read_text() == "scancel 7\n"
    assert answers.read_text() == ""


def test_a_controller_that_never_answers_is_an_error_where_its_answer_is_needed(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_ANSWER_S", -1.0)
    answers.write_text("")
    with pytest.raises(HarnessError, match="squeue --noheader --name=one"):
        Cluster(tmp_path).expire("one")
    Cluster(tmp_path).cancel("one")
    assert not (tmp_path / "calls").exists()


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
        assert missing() == "a SLURM cluster needs root, as slurmd does"
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
