"""Ways to exit during a save, and objects passed in ``extra``."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from tests.checkpoint.training import Job

ROOT = Path(__file__).parents[2]
START = """
import sys, atexit, time, logging
from pathlib import Path
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint.training import Job
logging.basicConfig()
job = Job(Path({directory!r}), 0, seed=1, async_mode="async")
genuine = LocalStorage.write
def slow(self, path, data):
    time.sleep(0.2)
    {in_write}
    return genuine(self, path, data)
LocalStorage.write = slow
job.save(1)
"""
FAIL = "raise OSError(28, 'No space left on device')"


def ended(directory: Path, end: str, in_write: str = "") -> subprocess.CompletedProcess[str]:
    code = START.format(directory=str(directory), in_write=in_write) + end
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        timeout=60,
        check=False,
        text=True,
        capture_output=True,
    )


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("raise SystemExit(3)", 3),
        ("raise KeyError('loop')", 1),
        ("del job", 0),
        ("atexit.register(job.manager.wait)", 0),
    ],
)
def test_a_save_under_way_is_finished_however_python_ends(
    tmp_path: Path, end: str, status: int
) -> None:
    assert ended(tmp_path, end).returncode == status
    assert (tmp_path / "checkpoints" / "latest").readlink() == Path("step_1")


def test_a_save_that_fails_after_the_loop_ended_says_so(tmp_path: Path) -> None:
    result = ended(tmp_path, "raise SystemExit(0)", in_write=FAIL)
    assert "the program did not wait for it" in result.stderr
    assert "saving step 1" in result.stderr
    assert "No space left on device" in result.stderr
    assert not (tmp_path / "checkpoints" / "latest").is_symlink()


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
