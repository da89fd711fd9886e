"""However a session ends, no process of it is left and nothing stays in shared memory."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.run.support import missing
from tests.harness.proving import ROOT

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

_MARK = "KEMPNERFORGE_TEST_MARK"
_PATIENCE_S = 60.0
_SCENARIO = "scenarios/resume/epoch-boundary-with-workers.yaml"


def _marked(mark: str) -> list[int]:
    """The processes that were started, however indirectly, with this mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"{_MARK}={mark}".encode() in environment.split(b"\0") and state != "Z":
            found.append(int(process.name))
    return found


def _wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=str)
def test_no_process_outlives_a_session_that_is_ended_in_the_middle(
    end: signal.Signals, tmp_path: Path
) -> None:
    mark = secrets.token_hex(8)
    runs = tmp_path / "runs"
    session = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", _SCENARIO,
         f"--run-root={runs}"],
        cwd=ROOT,
        env={**os.environ, _MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        # Server, leader, two ranks and two loader workers each: the job is in full swing.
        assert _wait_until(lambda: len(_marked(mark)) >= 8)
        session.send_signal(end)
        session.wait(_PATIENCE_S)
        assert _wait_until(lambda: not _marked(mark)), _marked(mark)
    finally:
        session.kill()
        session.wait()
        for pid in _marked(mark):
            os.kill(pid, signal.SIGKILL)
