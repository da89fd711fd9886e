"""Sending signals to ranks: the strikes that hit processes rather than operations.

Fault model: SIGKILL of a rank together with its sub-processes, as the end of a container; SIGTERM,
as a cluster scheduler sends it; SIGSTOP and, some seconds later, SIGCONT. A rank that waits in an
intercepted call is stopped when that call returns.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.plan.model import Strike

_SIGNALS = {"kill": signal.SIGKILL, "sigterm": signal.SIGTERM, "stop": signal.SIGSTOP}


@dataclass(slots=True)
class Signals:
    """The ranks' processes, and what was done to them."""

    pids: list[int] = field(default_factory=list)
    exits: dict[int, int] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    _wake_at: dict[int, float] = field(default_factory=dict)

    def hit(self, strike: Strike) -> tuple[int, ...]:
        """Send the strike's signal; the ranks that were there to get it."""
        alive = tuple(rank for rank in strike.ranks if rank not in self.killed | self.exits.keys())
        for rank in alive:
            if strike.fault == "kill":
                kill_tree(self.pids[rank])
                self.killed.add(rank)
            else:
                os.kill(self.pids[rank], _SIGNALS[strike.fault])
            if strike.fault == "stop":
                self._wake_at[rank] = time.monotonic() + (strike.seconds or 0.0)
        return alive

    def wake(self) -> None:
        """Let ranks go on whose time has come."""
        now = time.monotonic()
        for rank in [rank for rank, at in self._wake_at.items() if now >= at]:
            del self._wake_at[rank]
            if rank not in self.killed | self.exits.keys():
                os.kill(self.pids[rank], signal.SIGCONT)

    def left(self) -> tuple[int, ...]:
        """The ranks that have not ended."""
        return tuple(rank for rank in range(len(self.pids)) if rank not in self.exits)


def kill_tree(process: int) -> None:
    """SIGKILL a process and its descendants, the process first so that it starts no new ones."""
    descendants = _descendants(process)
    for pid in (process, *descendants):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(pid) for pid in listing.read_text(encoding="ascii").split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found
