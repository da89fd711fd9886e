"""Ways to exit during a save, and objects passed in ``extra``."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from tests.checkpoint.training import Job

ROOT = Path(__file__).parents[2]
START = """
import atexit, json, os, sys, time, logging
from pathlib import Path
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint.training import Job
import torch._dynamo  # the first optimizer would import it, in each of them
case, ended = None, {}
for name, given in json.loads(sys.argv[1]).items():  # forked: the imports take seconds
    process = os.fork()
    if process == 0:
        case = given
        break
    ended[name] = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
if case is None:
    print(json.dumps(ended))
    raise SystemExit
errors = os.open(case["directory"] + "/errors", os.O_WRONLY | os.O_CREAT)
os.dup2(errors, 2)
logging.basicConfig()
job = Job(Path(case["directory"]), 0, seed=1, async_mode="async")
genuine = LocalStorage.write
def slow(self, path, data):
    time.sleep(0.2)
    if case["fails"]:
        raise OSError(28, "No space left on device")
    return genuine(self, path, data)
LocalStorage.write = slow
job.save(1)
exec(compile(case["end"], "the end", "exec"), globals())
"""
ENDS = {
    "raise SystemExit(3)": 3,
    "raise KeyError('loop')": 1,
    "del job": 0,
    "atexit.register(job.manager.wait)": 0,
}
FAILS = "raise SystemExit(0)"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, Path]]:
    """The status with which Python ended in each way, and the directory of that job."""
    cases: dict[str, dict[str, Any]] = {
        end: {
            "directory": str(tmp_path_factory.mktemp("ended")),
            "end": end,
            "fails": end == FAILS,
        }
        for end in (*ENDS, FAILS)
    }
    command = [sys.executable, "-c", START, json.dumps(cases)]
    done = subprocess.run(
        command, cwd=ROOT, timeout=100, check=False, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout)
    return {end: (statuses[end], Path(case["directory"])) for end, case in cases.items()}


def errors_of(directory: Path) -> str:
    return (directory / "errors").read_text(encoding="utf-8")


@pytest.mark.parametrize(("end", "status"), ENDS.items())
def test_a_save_under_way_is_finished_however_python_ends(
    ended: dict[str, tuple[int, Path]], end: str, status: int
) -> None:
    found, directory = ended[end]
    assert found == status, errors_of(directory)
    assert (directory / "checkpoints" / "latest").readlink() == Path("step_1")


def test_a_save_that_fails_after_the_loop_ended_says_so(
    ended: dict[str, tuple[int, Path]],
) -> None:
    _, directory = ended[FAILS]
    said = errors_of(directory)
    assert "the program did not wait for it" in said
    assert "saving step 1" in said
    assert "No space left on device" in said
    assert not (directory / "checkpoints" / "latest").is_symlink()


def test_scaler_and_average_ride_in_extra_exactly(tmp_path: Path) -> None:
    scaler = GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(()))
    average = {"weights": {"a": torch.rand(3, dtype=torch.bfloat16)}, "updates": 7, "decay": 0.999}
    nested = {"scaler": scaler.state_dict(), "ema": average, "seen": [(1, None), ("x", {2: b"y"})]}
    Job(tmp_path, 0, seed=1).save(1, **nested)
    _, _, found = Job(tmp_path, 0, seed=2).load()
    assert torch.equal(found["ema"]["weights"].pop("a"), average["weights"].pop("a"))  # type: ignore[attr-defined]
    assert found == nested
    fresh = GradScaler("cpu")
    fresh.load_state_dict(found["scaler"])
    assert fresh.state_dict() == scaler.state_dict()
