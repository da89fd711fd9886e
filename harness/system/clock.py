"""Undelayed seconds: run time without run-queue delay.

On a loaded machine processes wait for a CPU, and a clock that counts this time mistakes a slow job
for a hung one. The kernel counts the wait of each thread (`schedstat`: nanoseconds in the run
queue). The clock of a run subtracts the longest wait of any one thread. A rank that sleeps, or that
burns a processor of its own, ages as usual.

Out of scope: ranks that wait for each other in turn, so that n of them can count up to n times too
fast; slow disks, memory and networks, for which budgets leave room; and kernels without
`schedstat`, where this is a wall clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

_LOOK_EVERY_S = 0.2
"""Reading 60 threads takes 2 ms of CPU time (measured), so this costs a hundredth of a CPU."""
_LONGEST_GAP_S = 1.0
"""A longer gap between two readings means that the machine, or the supervisor, was suspended."""
_NS = 1e9


class UndelayedClock:
    """The clock of one run; `processes` returns all of its processes whenever it is called."""

    def __init__(
        self, processes: Callable[[], Iterable[int]], *, look_every_s: float = _LOOK_EVERY_S
    ) -> None:
        self._processes = processes
        self._look_every_s = look_every_s
        self._seconds = 0.0
        self._looked = time.monotonic()
        self._waited: dict[int, int] = {}

    def seconds(self) -> float:
        """Returns seconds since the clock was made; it stands still between two readings."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < self._look_every_s:
            return self._seconds
        self._looked = now
        before = self._waited
        self._waited = _run_queue_ns([os.getpid(), *self._processes()])
        longest = max(
            (ns - before.get(thread, 0) for thread, ns in self._waited.items()), default=0
        )
        passed = min(passed, _LONGEST_GAP_S)
        self._seconds += passed - min(passed, max(0, longest) / _NS)
        return self._seconds


def descendants(process: int) -> list[int]:
    """Returns the processes below one, as far as they exist during the walk."""
    found: list[int] = []
    for thread in _threads(process):
        for child in map(int, _read(f"/proc/{process}/task/{thread}/children").split()):
            found += [child, *descendants(child)]
    return found


def _run_queue_ns(processes: Iterable[int]) -> dict[int, int]:
    """Returns how long each thread has ever waited for a CPU; skips threads that end meanwhile."""
    waited: dict[int, int] = {}
    for process in processes:
        for thread in _threads(process):
            fields = _read(f"/proc/{process}/task/{thread}/schedstat").split()
            if len(fields) > 1:
                waited[int(thread)] = int(fields[1])
    return waited


def _threads(process: int) -> list[str]:
    """Returns the threads of a process; none if it is gone, which can happen at any time."""
    try:
        return os.listdir(f"/proc/{process}/task")
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
