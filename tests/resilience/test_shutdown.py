"""Shutdown by signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kempnerforge.resilience.signal_handler import ShutdownHandler
from tests.checkpoint import rank_jobs
from tests.checkpoint.ranks import run_ranks


def test_all_ranks_answer_alike_when_one_is_signalled(tmp_path: Path) -> None:
    answers = run_ranks(rank_jobs.agree_on_shutdown, tmp_path, world=2)
    assert answers == [[False, False, True, True]] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_single_process_notices_each_signal_and_restores_handlers(number: int) -> None:
    before = signal.getsignal(number)
    handler = ShutdownHandler(timeout_sec=60)
    handler.register()
    assert not handler.should_shutdown()
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    assert handler.should_shutdown()
    handler.finish()
    assert signal.getsignal(number) is before


def test_a_shutdown_that_takes_too_long_is_ended_hard() -> None:
    code = """
import os, signal, threading
from kempnerforge.resilience.signal_handler import ShutdownHandler
handler = ShutdownHandler(timeout_sec=0.2)
handler.register()
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(60)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "shutdown after SIGTERM is not complete after 0.2 s" in ended.stderr


def test_a_deadline_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_sec must be positive"):
        ShutdownHandler(timeout_sec=0)
