"""Signals reach the ranks that are there and what belongs to them, and nobody else."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress

import pytest

from harness.run import signals
from harness.run.signals import Signals, kill_tree
from harness.system.parent import die_with_parent
from tests.harness.strikes import strike


def _start() -> int:
    """A process that waits for a signal."""
    test = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with_parent(test)
        signal.pause()
        os._exit(1)
    return pid


def _reap(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_rank_that_was_reaped_before_its_end_is_told_is_not_hit(number: signal.Signals) -> None:
    found = Signals(pids={0: _start(), 1: _start()})
    _reap(found.pids[0])
    both = strike(ranks=(0, 1), step=1)

    try:
        is_kill = number is signal.SIGKILL
        assert (found.kill(both) if is_kill else found.send(both, number)) == (1,)
        assert 0 not in found.killed
    finally:
        _reap(found.pids[1])


def test_a_rank_that_was_reaped_in_its_grace_is_not_killed() -> None:
    found = Signals(pids={0: _start()})
    found.send(strike(step=1), signal.SIGTERM, kill_at_s=1.0)
    _reap(found.pids[0])

    assert list(found.end_graces(1.0)) == []


def test_a_rank_that_was_reaped_while_it_stood_still_is_not_woken() -> None:
    found = Signals(pids={0: _start()})
    found.send(strike(step=1), signal.SIGSTOP, wake_after_s=0.0)
    _reap(found.pids[0])

    found.wake()


def test_what_a_process_forks_while_one_looks_goes_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signals, "descendants", lambda process: [])
    reading, writing = os.pipe()
    test = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with_parent(test)
        os.setpgid(0, 0)
        if os.fork() == 0:
            os.write(writing, b"r")
        signal.pause()
        os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"r"

    try:
        assert kill_tree(pid)
        os.waitpid(pid, 0)
        # Readable when nobody is left who could write.
        assert select.select([reading], [], [], 60.0)[0] == [reading]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.close(reading)


def test_a_process_in_the_group_of_another_is_killed_alone() -> None:
    reading, writing = os.pipe()
    other = os.fork()
    if other == 0:
        os.setpgid(0, 0)
        pid = _start()
        os.write(writing, str(pid).encode())
        os.waitpid(pid, 0)
        os._exit(7)

    assert kill_tree(int(os.read(reading, 16)))

    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 7
    os.close(reading)
    os.close(writing)
