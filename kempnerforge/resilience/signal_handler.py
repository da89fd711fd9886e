"""Shutdown on a signal, at the same step on every rank.

A scheduler signals each process by itself, milliseconds or a step apart. A rank that acted on its
own flag would leave the others waiting in a collective, so the flag is agreed on once a step.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["ShutdownHandler"]

logger = logging.getLogger(__name__)

DEFAULT_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_EXIT_STATUS = 1


class ShutdownHandler:
    """Turns a signal into an agreed end of training, and bounds how long that end may take.

    Args:
        timeout_sec: Seconds from the first signal, on this rank, to :meth:`finish`; then the
            process is ended hard. Also the longest that a rank waits for the others' answers.
        signals: Signals that ask for shutdown.
        process_group: Ranks that agree, all where None. It only says who takes part: agreement
            runs on a gloo group of its own.
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
        self._received: int | None = None
        self._timer: threading.Timer | None = None
        self._group: Any = None

    def register(self) -> None:
        """Install the handlers; in the main thread, not collective."""
        for number in self._signals:
            self._previous[number] = signal.signal(number, self._on_signal)

    def should_shutdown(self) -> bool:
        """Whether any rank was asked to shut down. Collective: once a step, on every rank.

        Every rank gets the same answer at the same call, so all save the same step or none does.
        """
        asked = self._received is not None
        group = self._agreement()
        if group is None:
            return asked
        flag = torch.tensor([int(asked)], dtype=torch.int32)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=group)
        return bool(flag.item())

    def finish(self) -> None:
        """Shutdown is complete: stop the clock and put the former handlers back.

        Call it after the last checkpoint is durable; until then further signals are ignored.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._received is not None:
            return
        self._received = number
        self._timer = threading.Timer(self._timeout_sec, self._end_hard)
        self._timer.name = "shutdown deadline"
        self._timer.daemon = True
        self._timer.start()

    def _end_hard(self) -> None:
        name = signal.Signals(self._received or signal.SIGTERM).name
        message = f"shutdown after {name} is not complete after {self._timeout_sec} s; ending hard"
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()
        os._exit(_EXIT_STATUS)

    def _agreement(self) -> Any:
        """The group to agree on, made at the first call; None for a single process."""
        if not (dist.is_available() and dist.is_initialized()):
            return None
        if self._group is None:
            ranks = dist.get_process_group_ranks(self._process_group or dist.group.WORLD)
            self._group = dist.new_group(
                ranks,
                timeout=timedelta(seconds=self._timeout_sec),
                backend="gloo",
                use_local_synchronization=True,
            )
        return self._group
