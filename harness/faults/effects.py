"""The interface through which faults act on a run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.faults.actions import Action
from harness.faults.point import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """The effect on one operation. `seconds` is None for an operation that never returns.

    `retransmit` carries it out and answers the error all the same.
    """

    kind: Literal["fail", "short_write", "retransmit", "wait", "second_job", "time_limit"]
    error: int = 0
    seconds: float | None = None


class PlannedStrike(Protocol):
    """A planned strike, as far as its fault can see it."""

    @property
    def id(self) -> str:
        """The strike's name in the trace."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that it hits."""

    @property
    def point(self) -> Point:
        """Where it strikes; its rank is set."""


class Effects(Protocol):
    """The requests that a fault can make. A strike that finds none of its ranks does not fire."""

    def record_fired(self, strike: PlannedStrike) -> None:
        """Record in the trace that the strike has hit its ranks."""

    def kill(self, strike: PlannedStrike) -> None:
        """SIGKILL its ranks with all their sub-processes."""

    def send(
        self,
        strike: PlannedStrike,
        number: signal.Signals,
        *,
        kill_after_s: float | None = None,
        wake_after_s: float | None = None,
    ) -> None:
        """Send a signal to its ranks, and some seconds later SIGKILL or SIGCONT."""

    def cut_power(self, journal: str) -> None:
        """Let nothing more reach the disk; the journal is `kept` or `lost`."""

    def act(self, strike: PlannedStrike, action: Action) -> None:
        """Change the directory from outside."""

    def start_second_job(self, strike: PlannedStrike) -> None:
        """Start the job once more on the same directory."""

    def expire(self, strike: PlannedStrike) -> None:
        """Bring the batch job's time limit to its end."""

    def cut_link(self, strike: PlannedStrike, node: int, seconds: float | None) -> None:
        """Pull the cable of a node; put it back after some seconds, or never."""

    def slow_link(self, node: int, kbit_s: int) -> None:
        """Limit the rate of a node's link from now on."""

    def fail(
        self, strike: PlannedStrike, error: str, left: int | None, until: Healing | None
    ) -> None:
        """Make later operations of its rank fail: this many, or all of them until it is healed."""


class Healing(Protocol):
    """The moment at which an error ends: when the rank begins a save, or has finished a step."""

    @property
    def save(self) -> int | None:
        """The ordinal of the save."""

    @property
    def step(self) -> int | None:
        """The training step."""
