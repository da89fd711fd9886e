"""A thread for calls that may never return, so that waiting for them can be bounded.

Caller and thread wake each other through a socket, not through a lock. The socket wake-up carries
``WF_SYNC``: the kernel knows that the waker is about to sleep and may run the woken thread on the
same CPU. On another CPU the thread would start with cold caches and, if each CPU has a rank,
compete with another rank.
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
    """Returns the seconds left to the current call of a worker; infinite outside of one."""
    return _deadline.get() - time.monotonic()


def within(timeout_s: float, call: Callable[[], T]) -> Callable[[], T]:
    """Returns ``call`` with a deadline from now on, of which it can ask the seconds left."""
    return partial(_make_until, time.monotonic() + timeout_s, call)


@contextlib.contextmanager
def impatient() -> Generator[None, None, None]:
    """Leaves no seconds in the block, so that nothing pauses for another attempt."""
    token = _deadline.set(-math.inf)
    try:
        yield
    finally:
        _deadline.reset(token)


class StartedCall(Generic[T]):
    """A call in progress in a worker."""

    def __init__(self, worker: "Worker", future: Future[T]) -> None:
        self._worker = worker
        self._future = future

    def result(self, *, timeout_s: float, doing: str) -> T:
        """Waits for the call and returns its result; see :meth:`Worker.run`."""
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

    The thread is started by the constructor, because no thread can be started while the interpreter
    shuts down. A call that outlives its deadline, or is no longer waited for, keeps the thread;
    :attr:`stuck` shows that, so that the call's next operations can be refused. If the process
    cannot start more threads, calls run in the caller's thread.
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
            logger.warning("%s: deadlines cannot be enforced, %s", name, error)
            self._has_thread = False
            other_end.close()

    def run(self, call: Callable[[], T], *, timeout_s: float, doing: str) -> T:
        """Runs ``call`` in the thread and returns its result.

        Raises:
            StorageTimeoutError: It did not return within ``timeout_s`` seconds.
        """
        return self.start(within(timeout_s, call)).result(timeout_s=timeout_s, doing=doing)

    def start(self, call: Callable[[], T]) -> StartedCall[T]:
        """Starts ``call``, so that the caller can do something else; the result must be fetched."""
        future: Future[T] = Future()
        self._last = weakref.ref(
            future
        )  # weak: otherwise its result would live until the next call
        if self._has_thread:
            self._give((call, future))
        else:
            _make(call, future)
        return StartedCall(self, future)

    def await_done(self, future: Future[Any], timeout_s: float) -> bool:
        """Waits for a call of this worker; returns whether it has returned."""
        deadline = time.monotonic() + timeout_s
        try:
            while not future.done():  # the signal may belong to an earlier call
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    self.stuck = True
                    return False
                self._end.wait(left_s)
        except BaseException:  # Ctrl-C, or an exception from a program's signal handler
            self.stuck = True
            raise
        return True

    def close(self) -> None:
        """Lets the thread end once its call has returned; a call not waited for is abandoned."""
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
    except BaseException as error:  # noqa: BLE001  # passed to the caller that fetches the result
        future.set_exception(error)
    finally:
        del call, future  # as in `StartedCall.result`


class _End(Protocol):
    """One end of a line between two threads."""

    def signal(self) -> None:
        """Wakes the other end, or ends its next wait at once."""

    def wait(self, timeout_s: float | None) -> None:
        """Waits until the other end has signalled, or the time is over."""

    def close(self) -> None:
        """Closes the end, which is not used any more."""


class _Socket:
    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def signal(self) -> None:
        with contextlib.suppress(OSError):  # the other end has given up and is closed
            # MSG_NOSIGNAL: SIGPIPE would end a program that does not handle it.
            self._socket.send(b"\0", socket.MSG_NOSIGNAL)

    def wait(self, timeout_s: float | None) -> None:
        self._socket.settimeout(timeout_s)
        with contextlib.suppress(TimeoutError):
            self._socket.recv(_SIGNALS)

    def close(self) -> None:
        self._socket.close()


class _Locks:
    """Fallback for a process without free descriptors."""

    def __init__(self, mine: threading.Semaphore, others: threading.Semaphore) -> None:
        self._mine, self._others = mine, others

    def signal(self) -> None:
        self._others.release()

    def wait(self, timeout_s: float | None) -> None:
        self._mine.acquire(timeout=timeout_s)

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


def _connected() -> tuple[_End, _End]:
    try:
        one, other = socket.socketpair()
    except OSError:
        mine, others = threading.Semaphore(0), threading.Semaphore(0)
        return _Locks(mine, others), _Locks(others, mine)
    return _Socket(one), _Socket(other)
