"""How the processes of one run are started, as far as its supervisor needs to know.

A launcher starts the ranks. The supervisor learns the process and the end of each rank, answers its
operations, and can have all ranks killed. It does not matter to it which process forks, restarts
and waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.run.links import Links
from harness.system.seccomp import Notification


class Calls(Protocol):
    """The intercepted calls of all ranks of a run that wait for an answer, as of one listener."""

    descriptor: int

    def receive(self) -> Notification | None:
        """Returns the next call; None if its thread is gone."""

    def answer(self, notification: Notification, value: int) -> None:
        """Return a value to the caller, or minus an errno."""

    def proceed(self, notification: Notification) -> None:
        """Let the kernel carry the call out."""

    def answer_with_descriptor(
        self, notification: Notification, own: int, *, number: int, close_on_exec: bool
    ) -> None:
        """Give the caller a duplicate of `own` as `number`."""

    def close(self) -> None:
        """Stop listening."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """News of the processes of a run: new processes and ends by rank.

    `stopped` are ranks that their launcher ended because another had failed, `signalled` those to
    which it sent a signal. `over` is None while any process of the run exists, and then names those
    that outlived their rank.
    """

    began: Mapping[int, int] = field(default_factory=dict)
    ended: Mapping[int, int] = field(default_factory=dict)
    stopped: tuple[int, ...] = ()
    signalled: tuple[int, ...] = ()
    over: tuple[str, ...] | None = None
    cpu_s: float = 0.0


class Launch(Protocol):
    """The processes of one run."""

    def listen(self) -> tuple[Calls, Links | None]:
        """Returns the calls to answer, and the links between the nodes, if there are nodes."""

    def fileno(self) -> int:
        """Returns a descriptor that is readable when there is news."""

    def receive(self) -> Iterable[News]:
        """Yields the news, in order. Raises HarnessError if its sender died."""

    def overdue(self) -> Iterable[News]:
        """Polls for changes that are not announced."""

    def stop(self) -> None:
        """Kill the ranks that are left."""

    def start_second(self) -> None:
        """Start a second job; its ranks are numbered after those of the first."""

    def expire(self) -> None:
        """Let the launcher's time limit come, and the signal that it sends before."""

    def close(self) -> None:
        """Release everything: the run is over, or abandoned."""
