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
from harness.scenario.words import DEADLY

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
        alive = tuple(
            rank for rank in strike.ranks if rank in self.left() and rank not in self.killed
        )
        for rank in alive:
            if strike.fault in DEADLY:
                kill_tree(self.pids[rank])
                self.killed.add(rank)
            else:
                os.kill(self.pids[rank], _SIGNALS[strike.fault])
            if strike.fault == "stop":
                self._wake_at[rank] = time.monotonic() + (strike.seconds or 0.0)
        if strike.grace_s is not None and alive:
            self._graces.append((now_s + strike.grace_s, strike))
        return alive

    def end_graces(self, now_s: float) -> Iterator[tuple[Strike, tuple[int, ...]]]:
        """Kill the ranks whose grace is over; the strike that gave it, and whom it still found."""
        for grace in [grace for grace in self._graces if now_s >= grace[0]]:
            self._graces.remove(grace)
            alive = [rank for rank in grace[1].ranks if rank in self.left()]
            found = tuple(rank for rank in alive if rank not in self.killed)
            for rank in found:
                kill_tree(self.pids[rank])
                self.killed.add(rank)
            if found:
                yield grace[1], found

    def wake(self) -> None:
        """Let ranks go on whose time has come."""
        now = time.monotonic()
        for rank in [rank for rank, at in self._wake_at.items() if now >= at]:
            del self._wake_at[rank]
            if rank not in self.killed | self.exits.keys():
                os.kill(self.pids[rank], signal.SIGCONT)

    def family(self) -> list[int]:
        """The processes of the run: the ranks that have not ended, and what is below them."""
        alive = [self.pids[rank] for rank in self.left()]
        return [*alive, *(below for pid in alive for below in descendants(pid))]

    def left(self) -> tuple[int, ...]:
        """The ranks that have not ended."""
        return tuple(rank for rank in sorted(self.pids) if rank not in self.exits)


def kill_tree(process: int) -> None:
    """SIGKILL a process and its descendants, the process first so that it starts no new ones."""
    found = descendants(process)
    for pid in (process, *found):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
