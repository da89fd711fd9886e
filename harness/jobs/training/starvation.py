"""Holds the background threads of the manager under test (`harness.faults.starve`).

`threading.setprofile` makes every thread that is started during a call of the manager ask here at
each Python call and return, before it has run a line of its own and each time that it wakes up.
A thread that is held reads nothing. Threads of the data loader are never held, because training
starts them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from harness.evidence.record import Struck
from harness.faults.strike import Strike
from harness.jobs.training.event_log import EventLog

_POLL_S = 0.01
_BLOCKED_S = 1.0
"""A main thread that has not run for so long waits for something. A step takes some 50 ms."""
_LONGEST_S = 10.0
"""A main thread that waits in a loop of its own never looks blocked."""


class Starvation:
    """The strikes that hold the threads of one rank. All methods are for its main thread."""

    def __init__(self, strikes: Iterable[Strike], *, rank: int, event_log: EventLog) -> None:
        self._strikes = {
            one.point.step: one
            for one in strikes
            if one.fault.starved_steps is not None and rank in one.ranks
        }
        self._event_log = event_log
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._recorded: set[str] = set()
        self._guard = threading.Lock()
        self._now: Strike | None = None
        self._until = 0
        self._passes_at: float | None = None
        """The time of the main thread while it is blocked, so that the others may run."""

    def build(self, make: Callable[[], Any]) -> Any:
        """Returns the manager that `make` builds, such that threads of its calls can be held."""
        return _Watched(self._watch(make)(), self._watch) if self._strikes else make()

    def after_step(self, step: int) -> None:
        """Hold the threads, or let them run again."""
        if self._now is not None and step >= self._until:
            self.end()
        strike = self._strikes.get(step)
        if strike is not None:
            self._until = step + (strike.fault.starved_steps or 0)
            self._now = strike

    def end(self) -> None:
        """Let all threads run, because the loop is about to wait for them."""
        self._now, self._passes_at = None, None

    def _watch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            threading.setprofile(self._ask)
            try:
                return call(*args, **kwargs)
            finally:
                threading.setprofile(None)

        return watched

    # In the threads that are held.

    def _ask(self, *_event: Any) -> None:
        strike = self._now
        if strike is None or self._passes_at == self._main_s():
            return
        self._record(strike)
        self._wait(strike)

    def _record(self, strike: Strike) -> None:
        with self._guard:
            if strike.id not in self._recorded:
                self._recorded.add(strike.id)
                self._event_log.record(Struck(strike=strike.id))

    def _wait(self, strike: Strike) -> None:
        began = since = time.monotonic()
        ran_s = self._main_s()
        while self._now is strike:
            time.sleep(_POLL_S)
            now, main_s = time.monotonic(), self._main_s()
            if main_s != ran_s:
                ran_s, since = main_s, now
            elif now - since > _BLOCKED_S:
                self._passes_at = main_s
                return
            if now - began > _LONGEST_S:
                self.end()

    def _main_s(self) -> float:
        return time.clock_gettime(self._clock)


class _Watched:
    """A manager whose methods are watched."""

    def __init__(self, manager: Any, watch: Callable[[Callable[..., Any]], Any]) -> None:
        self._manager, self._watch = manager, watch

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._manager, name)
        return self._watch(value) if callable(value) else value
