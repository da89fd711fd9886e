"""Sending signals to ranks: the strikes that hit processes rather than operations.

Fault model: SIGKILL of a rank together with its sub-processes, as the end of a container, and of
all ranks when the power goes; SIGTERM,
as a cluster scheduler sends it, and after a grace period, where there is one, SIGKILL for the ranks
that are still alive; SIGSTOP and, some seconds later, SIGCONT. A rank that waits in an intercepted
call is stopped when that call returns.

What must survive: a SIGKILL, also the one after the grace, everything that the job was told is
durable; a SIGTERM, the job, which saves once more and ends in order; a SIGSTOP, the job as if
nothing had been. Out of scope: SIGTERM to the sub-processes of a rank, SIGKILL of a single thread
or sub-process, signals that end a process with a core (a manager that gets one is judged by its
exit status), and the exact operation at which a grace ends: it is a time, so a scenario that needs
the place makes an operation there `hang` or `delay`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.plan.model import Strike
from harness.run.clock import descendants
from harness.words import DEADLY

_SIGNALS = {"sigterm": signal.SIGTERM, "stop": signal.SIGSTOP}


@dataclass(slots=True)
class Signals:
    """The ranks' processes, and what was done to them."""

    pids: dict[int, int] = field(default_factory=dict)
    exits: dict[int, int] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    _wake_at: dict[int, float] = field(default_factory=dict)
    _graces: list[tuple[float, Strike]] = field(default_factory=list)

    def hit(self, strike: Strike, now_s: float) -> tuple[int, ...]:
        """Send the strike's signal; the ranks that were there to get it.

        `now_s` is what the clock of the run says, by which a grace is counted: a job that has to
        wait for a processor is given longer.
        """
        if strike.fault in DEADLY:
            return self._kill(strike)
        number = _SIGNALS[strike.fault]
        hit = tuple(rank for rank in self._alive(strike) if _send(self.pids[rank], number))
        if strike.fault == "stop":
            wake_at = time.monotonic() + (strike.seconds or 0.0)
            self._wake_at |= dict.fromkeys(hit, wake_at)
        if strike.grace_s is not None and hit:
            self._graces.append((now_s + strike.grace_s, strike))
        return hit

    def _alive(self, strike: Strike) -> list[int]:
        left = self.left()
        return [rank for rank in strike.ranks if rank in left and rank not in self.killed]

    def _kill(self, strike: Strike) -> tuple[int, ...]:
        """Kill the ranks of a strike; those that were there."""
        found = tuple(rank for rank in self._alive(strike) if kill_tree(self.pids[rank]))
        self.killed.update(found)
        return found

    def end_graces(self, now_s: float) -> Iterator[tuple[Strike, tuple[int, ...]]]:
        """Kill the ranks whose grace is over; the strike that gave it, and whom it still found."""
        for grace in [grace for grace in self._graces if now_s >= grace[0]]:
            self._graces.remove(grace)
            if found := self._kill(grace[1]):
                yield grace[1], found

    def wake(self) -> None:
        """Let ranks go on whose time has come."""
        now = time.monotonic()
        for rank in [rank for rank, at in self._wake_at.items() if now >= at]:
            del self._wake_at[rank]
            if rank not in self.killed | self.exits.keys():
                _send(self.pids[rank], signal.SIGCONT)

    def family(self) -> list[int]:
        """The processes of the run: the ranks that have not ended, and what is below them."""
        alive = [self.pids[rank] for rank in self.left()]
        return [*alive, *(below for pid in alive for below in descendants(pid))]

    def left(self) -> tuple[int, ...]:
        """The ranks that have not ended."""
        return tuple(rank for rank in sorted(self.pids) if rank not in self.exits)


def kill_tree(process: int) -> bool:
    """SIGKILL a process and its descendants; whether it was there.

    The process goes first, so that it starts no new ones, and where it leads a group, the group
    with it: who was forked since one looked is in that.
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


def _send(process: int, number: signal.Signals) -> bool:
    """Send a signal to a process, or to minus a group; whether there was anybody to get it.

    A rank may have been reaped and its end not been told.
    """
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True
