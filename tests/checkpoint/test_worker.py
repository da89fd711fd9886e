"""The contract of the thread for calls that may never return."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from kempnerforge.checkpoint.errors import StorageTimeoutError
from kempnerforge.checkpoint.runtime.worker import Worker
from tests.checkpoint.descriptors import sockets

LONG_S = 60.0


@pytest.fixture(params=["sockets", "no descriptor left"])
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    if request.param == "no descriptor left":

        def refuse() -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(socket, "socketpair", refuse)
    with Worker("under test") as made:
        yield made


def test_a_call_is_made_in_the_thread_and_its_result_or_error_comes_back(worker: Worker) -> None:
    names = [
        worker.run(lambda: threading.current_thread().name, timeout_s=LONG_S, doing="asking")
        for _ in range(3)
    ]
    assert names == ["under test"] * 3
    with pytest.raises(ZeroDivisionError):
        worker.run(lambda: 1 // 0, timeout_s=LONG_S, doing="dividing")


def test_a_call_that_raises_a_timeout_of_its_own_is_not_taken_for_a_hung_one(
    worker: Worker,
) -> None:
    def run_out() -> None:
        raise TimeoutError("of the call")

    with pytest.raises(TimeoutError, match="of the call"):
        worker.run(run_out, timeout_s=LONG_S, doing="waiting")
    assert not worker.stuck


def test_calls_run_beside_the_caller_and_may_be_asked_for_in_any_order(worker: Worker) -> None:
    may_end, never = threading.Event(), threading.Event()
    first = worker.start(lambda: may_end.wait(LONG_S))
    second = worker.start(lambda: "second")
    may_end.set()
    assert second.result(timeout_s=LONG_S, doing="asking") == "second"
    assert first.result(timeout_s=LONG_S, doing="asking") is True
    # Signals of calls that were done before they were asked for are not those of a later call.
    slow = worker.start(lambda: never.wait(0.05))
    assert slow.result(timeout_s=LONG_S, doing="asking") is False


def test_a_hung_call_is_given_up_on_and_ends_without_harm_later(worker: Worker) -> None:
    may_end = threading.Event()
    with pytest.raises(StorageTimeoutError, match=r"reading did not finish within 0\.1 s"):
        worker.run(lambda: may_end.wait(LONG_S), timeout_s=0.1, doing="reading")
    assert worker.stuck
    worker.close()  # does not wait for it
    may_end.set()
    worker._thread.join(LONG_S)
    assert not worker._thread.is_alive()


def test_a_worker_takes_no_thread_and_no_descriptor_with_it() -> None:
    before = sockets()
    for _ in range(20):
        with Worker("one of many") as one:
            one.run(lambda: None, timeout_s=LONG_S, doing="nothing")
    # Of others, threads may end and sockets be closed at any time.
    assert "one of many" not in [thread.name for thread in threading.enumerate()]
    assert sockets() <= before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*")  # of Python 3.12 and newer
def test_a_child_that_was_forked_meanwhile_does_not_keep_the_thread() -> None:
    one = Worker("forks")
    until_closed, held_open = os.pipe()
    child = os.fork()
    if child == 0:  # a loader process, which has copies of the descriptors
        os.close(held_open)
        os.read(until_closed, 1)
        os._exit(0)
    try:
        one.close()
        assert not one._thread.is_alive()
    finally:
        os.close(held_open)
        os.waitpid(child, 0)
        os.close(until_closed)


def test_a_call_that_nobody_waited_for_is_given_up_at_the_end() -> None:
    may_end, one = threading.Event(), Worker("left")
    one.start(lambda: may_end.wait(LONG_S))
    one.close()  # does not wait for it
    assert one.stuck
    may_end.set()
    one._thread.join(LONG_S)
    assert not one._thread.is_alive()


def test_an_interrupt_ends_the_waiting_and_gives_the_call_up(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, genuine = threading.Event(), worker._end.wait

    def wait(timeout_s: float | None) -> None:
        # Again and again: one that comes just before the kernel waits interrupts nothing.
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        genuine(timeout_s)

    def interrupt(*_: object) -> None:
        if signal.setitimer(signal.ITIMER_REAL, 0.0) != (0.0, 0.0):
            raise KeyboardInterrupt

    monkeypatch.setattr(worker._end, "wait", wait)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.run(lambda: may_end.wait(LONG_S), timeout_s=LONG_S, doing="reading")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert worker.stuck
    worker.close()  # does not wait for it
    may_end.set()
    worker._thread.join(LONG_S)


def test_a_thread_that_wakes_up_late_ends_no_program_that_leaves_sigpipe_to_the_kernel() -> None:
    late = """
import signal, threading
from kempnerforge.checkpoint.runtime.worker import Worker
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
may_end, one = threading.Event(), Worker("late")
one.start(lambda: may_end.wait(60))
one.close()
may_end.set()
one._thread.join(60)
print("alive")
"""
    told = subprocess.run([sys.executable, "-c", late], capture_output=True, check=False)
    assert (told.returncode, told.stdout) == (0, b"alive\n")


def test_what_a_failed_call_held_is_free_without_the_garbage_collector(worker: Worker) -> None:
    class Large:
        pass

    freed = threading.Event()  # the thread lets go of a call a moment after its result is there

    def fail() -> None:
        held = Large()
        weakref.finalize(held, freed.set)
        raise ValueError

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            worker.run(fail, timeout_s=LONG_S, doing="reading")
        assert freed.wait(LONG_S)
    finally:
        gc.enable()


def test_where_no_thread_can_be_started_the_caller_makes_its_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Worker("none") as one:
        assert one.run(threading.get_ident, timeout_s=LONG_S, doing="x") == threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            one.run(lambda: 1 // 0, timeout_s=LONG_S, doing="dividing")
