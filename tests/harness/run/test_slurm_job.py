"""A batch job is followed until it is over for good, through whatever states SLURM shows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.boot import slurm

_SCONTROL = """\
#!/bin/sh
if [ "$1" = update ]; then
    echo "$@" >> "$STATES.updates"
    echo "Job is no longer pending execution" >&2
    exit 1
fi
read -r next < "$STATES"
sed -i 1d "$STATES"
if [ -z "$next" ]; then
    echo "slurm_load_jobs error: Unable to contact slurm controller" >&2
    exit 1
fi
echo "JobId=7 JobName=one JobState=${next% *} Reason=None Restarts=${next#* } Requeue=1"
"""


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what `scontrol` answers, a line each time that it is asked; none is an error."""
    tools = tmp_path / "tools"
    tools.mkdir()
    tools.joinpath("scontrol").write_text(_SCONTROL)
    tools.joinpath("scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STATES", str(tmp_path / "states"))
    monkeypatch.setattr(slurm, "_LOOK_EVERY_S", 0.0)
    return tmp_path / "states"


def _run_script(folder: Path, *, status: int = 0, **environment: str) -> int:
    """Run the batch script with an `srun` that ends at once, so; what the script ends with."""
    for name in ("scontrol", "srun"):
        said = f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\nexit {status}\n'
        (folder / name).write_text(said)
        (folder / name).chmod(0o755)
    (folder / "job.sh").write_text(slurm._script(["srun", "--ntasks=2"]))
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    usual = {"PATH": path, "SLURM_JOB_ID": "7"}
    return subprocess.run(
        ["bash", folder / "job.sh"], env={**usual, **environment}, check=False
    ).returncode


def test_a_job_has_all_of_its_time_again_before_its_ranks_start(tmp_path: Path) -> None:
    assert _run_script(tmp_path) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["scontrol update JobId=7 TimeLimit=60", "srun --ntasks=2"]


@pytest.mark.parametrize("status", [0, 3])
def test_a_step_that_has_ended_before_one_looks_has_its_status(tmp_path: Path, status: int) -> None:
    # As a script that gets no processor: it looks when nothing of the step is there any more.
    late = {"BASH_FUNC_kill%%": '() { while builtin kill "$@" 2>/dev/null; do :; done; return 1; }'}
    assert _run_script(tmp_path, status=status, **late) == status


@pytest.mark.parametrize("passing", ["SIGNALING", "CONFIGURING", "STOPPED", "STAGE_OUT"])
def test_a_state_that_passes_is_not_the_end(states: Path, passing: str) -> None:
    states.write_text(f"PENDING 0\nRUNNING 0\n{passing} 0\nRUNNING 0\nCOMPLETED 0\nRUNNING 0\n")
    assert slurm._follow("7") == 0
    assert states.read_text() == "RUNNING 0\n"


@pytest.mark.parametrize("last", ["FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"])
def test_a_job_that_did_not_complete_has_failed(states: Path, last: str) -> None:
    states.write_text(f"RUNNING 0\n{last} 0\nRUNNING 0\n")
    assert slurm._follow("7") == 1
    assert states.read_text() == "RUNNING 0\n"


def test_a_requeued_job_may_start_at_once_and_may_have_begun_by_itself(
    states: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_REST_S", -1.0)
    states.write_text("PENDING 0\nRUNNING 0\nCOMPLETING 1\nPENDING 1\nRUNNING 1\nCOMPLETED 1\n")
    assert slurm._follow("7") == 0
    updates = states.with_suffix(".updates").read_text().splitlines()
    assert updates == ["update JobId=7 StartTime=now"]


def test_a_controller_that_does_not_answer_for_a_while_is_asked_again(states: Path) -> None:
    states.write_text("RUNNING 0\n\n\nRUNNING 0\n\nCOMPLETED 0\nRUNNING 0\n")
    assert slurm._follow("7") == 0
    assert states.read_text() == "RUNNING 0\n"


def test_a_job_that_nobody_tells_of_any_more_has_failed(
    states: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_GONE_S", -1.0)
    states.write_text("RUNNING 0\n\nCOMPLETED 0\n")
    assert slurm._follow("7") == 1
    assert states.read_text() == "COMPLETED 0\n"
