"""Undelayed seconds: run time without run-queue delay.

On a loaded machine processes wait for a CPU, and a clock that counts this time mistakes a slow job
for one that hangs. The kernel counts the wait of each thread (`schedstat`: nanoseconds in the run
queue); the clock of a run leaves out that of the thread that waited longest. A rank that
sleeps, or that burns a processor of its own, ages as usual.

Out of scope: ranks that wait one after the other for what the other does, so that n of them may
count up to n times as fast as they should; slow disks, memory and networks, for which budgets leave
room; and kernels without `schedstat`, where this is the clock on the wall.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

_LOOK_EVERY_S = 0.2
"""A look at 60 threads takes 2 ms of a processor (measured), so this is a hundredth of one."""
_LONGEST_GAP_S = 1.0
"""More than this between two looks is a machine that stood still, or a supervisor that did."""
_NS = 1e9


class UndelayedClock:
    """The clock of one run; `processes` names all of its processes, whenever it is asked."""

    def __init__(
        self, processes: Callable[[], Iterable[int]], *, look_every_s: float = _LOOK_EVERY_S
    ) -> None:
        self._processes = processes
        self._look_every_s = look_every_s
        self._seconds = 0.0
        self._looked = time.monotonic()
        self._waited: dict[int, int] = {}

    def seconds(self) -> float:
        """Seconds since the clock was made; between two looks it stands still."""
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
    """The processes below one, as far as they are there while one looks."""
    found: list[int] = []
    for thread in _threads(process):
        for child in map(int, _read(f"/proc/{process}/task/{thread}/children").split()):
            found += [child, *descendants(child)]
    return found


def _run_queue_ns(processes: Iterable[int]) -> dict[int, int]:
    """By thread, how long it has ever waited for a processor; threads that end are left out."""
    waited: dict[int, int] = {}
    for process in processes:
        for thread in _threads(process):
            fields = _read(f"/proc/{process}/task/{thread}/schedstat").split()
            if len(fields) > 1:
                waited[int(thread)] = int(fields[1])
    return waited


def _threads(process: int) -> list[str]:
    """The threads of a process; none where it is gone, which it may be at any time."""
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
