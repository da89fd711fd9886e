"""How the processes of one run are started, as far as its supervisor has to know.

A launcher starts the ranks. Of each the supervisor is told its process and its end, and asked for
every operation; it can have all of them killed. Who forks, restarts and waits is not its business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.run.links import Links
from harness.system.seccomp import Notification


class Calls(Protocol):
    """The calls of all ranks of a run that wait for an answer, as of one listener."""

    descriptor: int

    def receive(self) -> Notification | None:
        """The next one; None when its thread is gone."""

    def answer(self, notification: Notification, value: int) -> None:
        """Return a value to the caller, or minus an errno."""

    def proceed(self, notification: Notification) -> None:
        """Let the kernel carry the call out."""

    def answer_with_descriptor(
        self, notification: Notification, own: int, *, number: int, close_on_exec: bool
    ) -> None:
        """Give the caller a duplicate of `own` as `number`."""

    def close(self) -> None:
        """Hear nobody any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """News of the processes of a run: processes and ends by rank.

    `stopped` are ranks that their launcher ended because another had failed, `signalled` those to
    which it sent a signal.
    `over` is None while any process of the run is there, and then names those that outlived their
    rank.
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
        """The listeners for operations, and the links between the nodes, where there are nodes."""

    def fileno(self) -> int:
        """The descriptors that are readable when there is news."""

    def hear(self) -> Iterable[News]:
        """The news, in their order. Raises HarnessError when whoever tells them died."""

    def overdue(self) -> Iterable[News]:
        """Polls for changes that nothing announces."""

    def stop(self) -> None:
        """Kill the ranks that are left."""

    def start_second(self) -> None:
        """Start a second job; its ranks are numbered behind those of the first."""

    def expire(self) -> None:
        """Have the launcher's time limit come, and with it the signal that it sends before."""

    def close(self) -> None:
        """The run is over, or nobody wants to know more of it."""
