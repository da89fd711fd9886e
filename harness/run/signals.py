"""Sends signals to ranks; a rank in an intercepted call gets them when the call returns.

A rank is a process that the harness started, or one that a launcher of the job's own starts below
it. What hits all ranks hits their launcher.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from harness.faults.effects import PlannedStrike
from harness.system.clock import descendants
from harness.system.dying import is_dying
from harness.system.stacks import REQUEST


@dataclass(slots=True)
class Signals:
    """The ranks' processes, and the signals that they were sent.

    If the only one of `pids` is a launcher, `launched` is the number of its ranks, and `below` has
    the processes of those that were found.
    """

    pids: dict[int, int] = field(default_factory=dict)
    exits: dict[int, int] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    launched: int = 0
    below: dict[int, int] = field(default_factory=dict)
    _wake_at: dict[int, float] = field(default_factory=dict)
    _graces: list[tuple[float, PlannedStrike]] = field(default_factory=list)

    def send(
        self,
        strike: PlannedStrike,
        number: signal.Signals,
        *,
        kill_at_s: float | None = None,
        wake_after_s: float | None = None,
    ) -> tuple[int, ...]:
        """Send a signal to the ranks of a strike; returns the ranks that existed.

        `kill_at_s` is when their grace ends, by the clock of the run: a job that has to wait for a
        processor gets more time.
        """
        hit = self._reach(strike, lambda process: _send(process, number))
        if wake_after_s is not None:
            self._wake_at |= dict.fromkeys(hit, time.monotonic() + wake_after_s)
        if kill_at_s is not None and hit:
            self._graces.append((kill_at_s, strike))
        return hit

    def _reach(self, strike: PlannedStrike, act: Callable[[int], bool]) -> tuple[int, ...]:
        """Do something to the ranks of a strike that are alive; returns those that existed."""
        left = range(self.launched) if self.launched and self.left() else self.left()
        ranks = [rank for rank in strike.ranks if rank in left and rank not in self.killed]
        if ranks and len(strike.ranks) == self.launched:
            return tuple(ranks) if act(self.pids[0]) else ()
        return tuple(
            rank for rank in ranks if (found := self._process(rank)) is not None and act(found)
        )

    def _process(self, rank: int) -> int | None:
        return self.below.get(rank, self.pids.get(rank))

    def is_killed(self, rank: int, thread: int) -> bool:
        """Whether a thread of a rank was killed; a launcher can start a killed rank again."""
        return rank in self.killed and (not self.launched or is_dying(thread))

    def kill(self, strike: PlannedStrike) -> tuple[int, ...]:
        """Kill the ranks of a strike; returns the ranks that existed."""
        found = self._reach(strike, kill_tree)
        self.killed.update(found)
        return found

    def end_graces(self, now_s: float) -> Iterator[tuple[PlannedStrike, tuple[int, ...]]]:
        """Kill the ranks whose grace is over; yields the strike that gave it, and the ranks."""
        for grace in [grace for grace in self._graces if now_s >= grace[0]]:
            self._graces.remove(grace)
            if found := self.kill(grace[1]):
                yield grace[1], found

    def wake(self) -> None:
        """Resume the stopped ranks whose time has come."""
        now = time.monotonic()
        for rank in [rank for rank, at in self._wake_at.items() if now >= at]:
            del self._wake_at[rank]
            if rank not in self.killed | self.exits.keys():
                _send(self._process(rank) or 0, signal.SIGCONT)

    def ask_for_stacks(self, ranks: Iterable[int]) -> None:
        """Have ranks write the stacks of their threads."""
        for rank in ranks:
            if rank not in self.killed:
                _send(self.pids[rank], REQUEST)

    def family(self) -> list[int]:
        """Returns the processes of the run: ranks that have not ended, and their descendants."""
        alive = [self.pids[rank] for rank in self.left()]
        return [*alive, *(below for pid in alive for below in descendants(pid))]

    def left(self) -> tuple[int, ...]:
        """Returns the ranks that have not ended."""
        return tuple(rank for rank in sorted(self.pids) if rank not in self.exits)


def kill_tree(process: int) -> bool:
    """SIGKILL a process and its descendants; returns whether it existed.

    The process goes first, so that it starts no new ones. If it leads a group, the group goes with
    it, because a child forked after the last look is in that group.
    """
    found = descendants(process)
    was_there = _send(-process if _leads_a_group(process) else process, signal.SIGKILL)
    for pid in found:
        _send(pid, signal.SIGKILL)
    return was_there


def _leads_a_group(process: int) -> bool:
    try:
        return os.getpgid(process) == process
    except ProcessLookupError:
        return False


def _send(process: int, number: int) -> bool:
    """Send a signal to a process, or to minus a group; returns whether anything received it.

    A rank can have been reaped without its end having been reported yet.
    """
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True
