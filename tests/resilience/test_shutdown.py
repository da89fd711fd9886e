"""Shutdown by signal."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

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


SIGNALLED_AND_HUNG = """
import os, signal, threading
from kempnerforge.resilience.signal_handler import ShutdownHandler
handler = ShutdownHandler(timeout_sec=0.2)
handler.register()
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(60)
"""


IMPORT_S = 100.0
"""For a process that imports torch, which takes a loaded machine half a minute and more."""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=IMPORT_S,
        check=False,
    )


def test_a_shutdown_that_takes_too_long_is_ended_hard() -> None:
    ended = run(SIGNALLED_AND_HUNG)
    assert ended.returncode == 1
    assert "shutdown after SIGTERM not complete after 0.2 s" in ended.stderr


def status_of(code: str) -> int:
    """How it ends if nobody reads what it says."""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        return process.wait(IMPORT_S)
    finally:
        process.kill()
        process.communicate()


def test_it_is_ended_hard_although_nobody_reads_what_it_says() -> None:
    """Standard error is a full pipe, and the thread that hangs holds Python's lock of it."""
    full = "import sys; sys.stderr.write('x' * 1_000_000)"
    assert status_of(SIGNALLED_AND_HUNG.replace("threading.Event().wait(60)", full)) == 1


def test_it_is_ended_hard_although_the_pipe_fills_up_before_its_last_words_are_in() -> None:
    stuck = "os.write = lambda *_: threading.Event().wait(120)\n"
    assert status_of(SIGNALLED_AND_HUNG.replace("handler =", stuck + "handler =", 1)) == 1


def say_so_and_wait(pipe: Any) -> None:
    pipe.send("up")
    threading.Event().wait(60)


def test_a_forked_child_is_ended_by_signals_as_before_and_the_parent_is_not_asked() -> None:
    handler = ShutdownHandler(timeout_sec=60)
    handler.register()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=say_so_and_wait, args=(there,))
    child.start()
    assert here.recv() == "up"
    child.terminate()
    child.join(30)
    asked = handler.should_shutdown()
    handler.finish()
    assert (child.exitcode, asked) == (-signal.SIGTERM, False)


def test_registering_twice_still_restores_what_was_there_first() -> None:
    before = signal.getsignal(signal.SIGTERM)
    handler = ShutdownHandler()
    handler.register()
    handler.register()
    handler.finish()
    handler.finish()
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_serves_again_after_it_has_finished() -> None:
    handler = ShutdownHandler()
    for _ in range(2):
        handler.register()
        assert not handler.should_shutdown()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert handler.should_shutdown()
        handler.finish()
    assert [one.name for one in threading.enumerate() if "shutdown" in one.name] == []


def test_a_deadline_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_sec must be positive"):
        ShutdownHandler(timeout_sec=0)
