"""The clock of a run does not count what the machine lets its processes wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from harness.run.support import missing
from harness.system.clock import UndelayedClock, descendants

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

_SPIN = "while True: pass"


@pytest.fixture
def on_one_core() -> Iterator[list[int]]:
    """Four processes that want one core: each waits three quarters of its time for it."""
    core = min(os.sched_getaffinity(0))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{core}])\n{_SPIN}"]
        )
        for _ in range(4)
    ]
    yield [one.pid for one in running]
    for one in running:
        one.kill()
        one.wait()


def _pass_s(clock: UndelayedClock, seconds: float) -> float:
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        clock.seconds()
        os.sched_yield()
    return clock.seconds()


def test_time_in_the_run_queue_does_not_count(on_one_core: list[int]) -> None:
    clock = UndelayedClock(lambda: on_one_core, look_every_s=0.05)
    assert _pass_s(clock, 2.0) < 1.2


def test_the_time_of_a_process_that_sleeps_counts() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        clock = UndelayedClock(lambda: [sleeper.pid], look_every_s=0.05)
        began = time.monotonic()
        while clock.seconds() < 0.5:
            assert time.monotonic() - began < 60
            time.sleep(0.02)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_between_two_looks_the_clock_stands_still_and_nobody_is_asked() -> None:
    asked: list[int] = []

    def processes() -> list[int]:
        asked.append(1)
        return []

    clock = UndelayedClock(processes, look_every_s=3600)
    assert [clock.seconds() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert asked == []


def test_a_process_that_is_gone_takes_no_time_away() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    clock = UndelayedClock(lambda: [gone.pid], look_every_s=0.0)
    assert clock.seconds() >= 0.0


def test_processes_that_come_and_go_while_one_looks_are_no_error() -> None:
    shell = subprocess.Popen(["sh", "-c", "while :; do true | true; (true; true); done"])
    try:
        clock = UndelayedClock(lambda: [shell.pid, *descendants(shell.pid)], look_every_s=0.0)
        seconds = [clock.seconds() for _ in range(300)]
    finally:
        shell.kill()
        shell.wait()
    assert seconds == sorted(seconds)


def test_all_generations_are_descendants() -> None:
    shell = subprocess.Popen(
        ["sh", "-c", "(echo up; sleep 60; true); true"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"up\n"
        while len(descendants(shell.pid)) < 2:
            assert shell.poll() is None
        assert shell.pid not in descendants(shell.pid)
    finally:
        # Together: one that is forked meanwhile would hold the pipe until it ends.
        os.killpg(shell.pid, signal.SIGKILL)
        shell.communicate()
