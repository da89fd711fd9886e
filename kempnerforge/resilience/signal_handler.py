"""Shutdown on a signal, at the same step on every rank.

A scheduler signals each process separately, milliseconds or even a step apart. A rank that acted on
its own flag would leave the others waiting in a collective, so the ranks agree on it once per step.

The signal handler takes no lock, because it can interrupt the main thread anywhere. It sets a flag
and starts the deadline thread without the bookkeeping of :mod:`threading`.
"""

import _thread
import itertools
import os
import queue
import signal
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.runtime.departure import announce
from kempnerforge.resilience.agreement import Agreement

__all__ = ["ShutdownHandler"]

DEFAULT_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_EXIT_STATUS = 1
# Long enough for a slow reader of standard error.
_LAST_WORDS_S = 1.0


class ShutdownHandler:
    """Turns a signal into an agreed end of training, and bounds how long that end takes.

    Call :meth:`register` and :meth:`finish` from the main thread, and make all calls of
    :meth:`should_shutdown` from one thread. Also works without torch.distributed, in one process.

    Args:
        timeout_sec: Seconds allowed until :meth:`finish`, counted from the first signal on this
            rank or from the call that reported another rank's signal; then the process is killed.
            Also the longest time that a rank waits for the others' answers.
        signals: Signals that request a shutdown.
        process_group: Ranks that take part; None means all. The group itself is not used:
            agreement runs on a separate gloo group.

    Raises:
        ValueError: ``timeout_sec`` is not positive.
    """

    def __init__(
        self,
        timeout_sec: float = 600.0,
        signals: Iterable[int] = DEFAULT_SIGNALS,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        if timeout_sec <= 0:
            raise ValueError(f"timeout_sec must be positive, found {timeout_sec}")
        self._timeout_sec = timeout_sec
        self._signals = tuple(signals)
        self._process_group = process_group
        self._previous: dict[int, Any] = {}
        self._owner = os.getpid()
        self._received: int | None = None
        self._agreed = False
        self._agreement: Agreement | None = None
        self._deadline = _Deadline(timeout_sec)

    def register(self) -> None:
        """Installs the handlers, in the main thread; not collective. A second call does nothing.

        Raises:
            ValueError: This is not the main thread.
        """
        self._owner = os.getpid()
        announce()
        for number in self._signals:
            if number not in self._previous:
                self._previous[number] = signal.signal(number, self._on_signal)

    def should_shutdown(self) -> bool:
        """Whether any rank was asked to shut down. Collective: once per step, on every rank.

        Every rank gets the same answer from the same call, so either all save that step or none
        does. Once the answer is yes it stays yes, and the ranks no longer communicate. A signal
        that arrives between two calls counts at the next one.

        Raises:
            PeerLostError: A rank died, exited, or did not make this call within ``timeout_sec``
                seconds; every later call raises it too. A save needs all ranks, so none can save.
        """
        if self._agreed:
            return True
        asked = self._received is not None
        if self._agreement is None:
            self._agreement = self._agree()
        if self._agreement is not None:
            asked = self._agreement.any(asked)
        if asked:
            self._agreed = True
            self._deadline.start(_name_of(self._received))
        return asked

    def finish(self) -> None:
        """Ends the shutdown: stops the deadline, restores the former handlers; not collective.

        Call it after the last checkpoint is durable; until then, further signals are ignored.
        """
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous = {}
        self._deadline.stop()
        self._deadline = _Deadline(self._timeout_sec)
        if self._agreement is not None:
            self._agreement.close()
            self._agreement = None
        self._received, self._agreed = None, False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._owner:
            self._pass_on(number)
            return
        if self._received is None:
            self._received = number
            self._deadline.start(_name_of(number))

    def _pass_on(self, number: int) -> None:
        """In a forked child, such as a dataloader worker, does what the signal did before."""
        signal.signal(number, self._previous.get(number) or signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _agree(self) -> Agreement | None:
        """Returns the agreement, created at the first call; None without torch.distributed."""
        if not (dist.is_available() and dist.is_initialized()):
            return None
        ranks = dist.get_process_group_ranks(self._process_group or dist.group.WORLD)
        return Agreement(tuple(ranks), timeout_s=self._timeout_sec)


class _Deadline:
    """Ends the process if :meth:`stop` does not follow :meth:`start` in time."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._starts = itertools.count()
        self._stop: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self, cause: str) -> None:
        """Starts the clock, unless it is running; safe in a signal handler."""
        if next(self._starts) == 0:  # atomic, because a signal can interrupt anywhere
            _thread.start_new_thread(self._keep, (cause,))

    def stop(self) -> None:
        """Stops the clock for good."""
        if next(self._starts) > 0:
            self._stop.put(None)
            self._stopped.get()

    def _keep(self, cause: str) -> None:
        try:
            self._stop.get(timeout=self._timeout_s)
        except queue.Empty:
            self._end_hard(cause)
        self._stopped.put(None)

    def _end_hard(self, cause: str) -> None:
        message = (
            f"shutdown after {cause} not complete after {self._timeout_s} s; exiting at once\n"
        )
        try:
            # A pipe that has room now can be full a moment later, and then the write never returns.
            _thread.start_new_thread(_end_soon, ())
            # The thread that hangs may hold the lock of Python's own stream.
            os.write(2, message.encode())
        finally:
            os._exit(_EXIT_STATUS)


def _end_soon() -> None:
    time.sleep(_LAST_WORDS_S)
    os._exit(_EXIT_STATUS)


def _name_of(number: int | None) -> str:
    return "a signal to another rank" if number is None else signal.Signals(number).name
