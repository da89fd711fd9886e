"""A thread for calls that may never return, so that waiting for them can end.

Caller and thread wake each other through a socket, not with a lock: that tells the kernel that who
wakes is about to wait (``WF_SYNC``), and it lets the other one run on the same processor. Woken
elsewhere a thread begins with cold caches, and, where each processor has a rank, in the way of
another rank: a load of 50 MB on two processors took 14 ms instead of 12.
"""

import contextlib
import logging
import math
import socket
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Protocol, Self, TypeVar

from kempnerforge.checkpoint.errors import StorageTimeoutError

__all__ = ["StartedCall", "Worker", "impatient", "seconds_left", "within"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SIGNALS = 64
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def seconds_left() -> float:
    """Until the call of a worker that this code runs in is given up on; infinite elsewhere."""
    return _deadline.get() - time.monotonic()


def within(timeout_s: float, call: Callable[[], T]) -> Callable[[], T]:
    """``call``, which can ask from now on how many of ``timeout_s`` seconds are left."""
    return partial(_make_until, time.monotonic() + timeout_s, call)


@contextlib.contextmanager
def impatient() -> Generator[None, None, None]:
    """No seconds are left within, so that nothing waits before it tries again."""
    token = _deadline.set(-math.inf)
    try:
        yield
    finally:
        _deadline.reset(token)


class StartedCall(Generic[T]):
    """A call that a worker was given."""

    def __init__(self, worker: "Worker", future: Future[T]) -> None:
        self._worker = worker
        self._future = future

    def result(self, *, timeout_s: float, doing: str) -> T:
        """The result of the call; as :meth:`Worker.run`."""
        try:
            if not self._worker.await_done(self._future, timeout_s):
                raise StorageTimeoutError(f"{doing} did not finish within {timeout_s:.1f} s")
            return self._future.result()
        finally:
            # Break the reference cycle frame, error, traceback; otherwise everything that the call
            # read lives until a garbage collection.
            del self


class Worker:
    """One daemon thread that runs one call at a time.

    Its thread is started at construction, because no thread can be started while the interpreter
    shuts down. A call that outlives its deadline, or is not waited for to its end, keeps the
    thread; :attr:`stuck` tells, so that what the call does next can be refused. Where the process
    may start no more threads, calls are made by who asks for them.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self.stuck = False
        self._last: weakref.ref[Future[Any]] | None = None
        self._end, other_end = _connected()
        self._thread = threading.Thread(
            target=self._serve, args=(other_end,), name=name, daemon=True
        )
        self._has_thread = True
        try:
            self._thread.start()
        except RuntimeError as error:
            logger.warning("%s: no deadline holds, %s", name, error)
            self._has_thread = False
            other_end.close()

    def run(self, call: Callable[[], T], *, timeout_s: float, doing: str) -> T:
        """Result of ``call``.

        Raises:
            StorageTimeoutError: It did not return within ``timeout_s`` seconds.
        """
        return self.start(within(timeout_s, call)).result(timeout_s=timeout_s, doing=doing)

    def start(self, call: Callable[[], T]) -> StartedCall[T]:
        """Have ``call`` made while the caller does something else; its result must be asked for."""
        future: Future[T] = Future()
        self._last = weakref.ref(future)  # with its result it would be kept until the next call
        if self._has_thread:
            self._give((call, future))
        else:
            _make(call, future)
        return StartedCall(self, future)

    def await_done(self, future: Future[Any], timeout_s: float) -> bool:
        """Wait for a call of this worker; whether it has returned."""
        deadline = time.monotonic() + timeout_s
        try:
            while not future.done():  # a signal may be that of an earlier call
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    self.stuck = True
                    return False
                self._end.wait(left_s)
        except BaseException:  # Ctrl-C, or what a program's signal handler raises
            self.stuck = True
            raise
        return True

    def close(self) -> None:
        """Let the thread end once its call has returned; one that nobody waits for is given up."""
        last = None if self._last is None else self._last()
        self.stuck |= last is not None and not last.done()
        self._give(None)
        if self._has_thread and not self.stuck:
            self._thread.join()
        self._end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _give(self, item: tuple[Callable[[], Any], Future[Any]] | None) -> None:
        self._calls.put(item)
        self._end.signal()

    def _serve(self, end: "_End") -> None:
        while True:
            while self._calls.empty():
                end.wait(None)
            item = self._calls.get()
            if item is None:
                break
            call, future = item
            _make(call, future)
            end.signal()
            del call, future, item
        end.close()


def _make_until(deadline: float, call: Callable[[], T]) -> T:
    token = _deadline.set(deadline)
    try:
        return call()
    finally:
        _deadline.reset(token)


def _make(call: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001  # travels to who asks for the result
        future.set_exception(error)
    finally:
        del call, future  # as in `StartedCall.result`


class _End(Protocol):
    """Of a line between two threads."""

    def signal(self) -> None:
        """Wake the other one, or its next wait."""

    def wait(self, timeout_s: float | None) -> None:
        """Until the other one has signalled, or the time is over."""

    def close(self) -> None:
        """No signal will be sent or waited for here any more."""


class _Socket:
    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def signal(self) -> None:
        with contextlib.suppress(OSError):  # the other one has given up and is gone
            # Without the signal that ends a program which leaves SIGPIPE to the kernel.
            self._socket.send(b"\0", socket.MSG_NOSIGNAL)

    def wait(self, timeout_s: float | None) -> None:
        self._socket.settimeout(timeout_s)
        with contextlib.suppress(TimeoutError):
            self._socket.recv(_SIGNALS)

    def close(self) -> None:
        self._socket.close()


class _Locks:
    """For a process that has no descriptor left."""

    def __init__(self, mine: threading.Semaphore, others: threading.Semaphore) -> None:
        self._mine, self._others = mine, others

    def signal(self) -> None:
        self._others.release()

    def wait(self, timeout_s: float | None) -> None:
        self._mine.acquire(timeout=timeout_s)

    def close(self) -> None:
        """There is nothing to give back."""


def _connected() -> tuple[_End, _End]:
    try:
        one, other = socket.socketpair()
    except OSError:
        mine, others = threading.Semaphore(0), threading.Semaphore(0)
        return _Locks(mine, others), _Locks(others, mine)
    return _Socket(one), _Socket(other)
