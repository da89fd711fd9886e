"""The interface through which faults act on a run."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.faults.actions import Action
from harness.faults.point import Point


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """The effect on one operation. `seconds` is None for an operation that never returns."""

    kind: Literal["fail", "short_write", "wait", "second_job", "time_limit"]
    error: int = 0
    seconds: float | None = None


class PlannedStrike(Protocol):
    """A strike of a plan, as far as its fault has to know it."""

    @property
    def id(self) -> str:
        """How the trace calls it."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that it hits."""

    @property
    def point(self) -> Point:
        """Where it strikes; its rank is set."""


class Effects(Protocol):
    """The supervisor's side. A strike that finds none of its ranks does not fire."""

    def land(self, strike: PlannedStrike) -> None:
        """The trace says that it has struck its ranks."""

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
        """Send a signal to its ranks; some seconds later SIGKILL, or SIGCONT."""

    def cut_power(self, journal: str) -> None:
        """Nothing more reaches the disk; the journal is `kept` or `lost`."""

    def act(self, strike: PlannedStrike, action: Action) -> None:
        """Change the directory from outside."""

    def start_second_job(self, strike: PlannedStrike) -> None:
        """Start the job once more on the same directory."""

    def expire(self, strike: PlannedStrike) -> None:
        """Let the time of the batch job come to its end."""

    def cut_link(self, strike: PlannedStrike, node: int, seconds: float | None) -> None:
        """Pull the cable of a node; put it back after some seconds, or never."""

    def slow_link(self, node: int, kbit_s: int) -> None:
        """Let the link of a node carry so much from now on."""

    def fail(
        self, strike: PlannedStrike, error: str, left: int | None, until: Healing | None
    ) -> None:
        """Let later operations of its rank fail: so many more, or all until it is healed."""


class Healing(Protocol):
    """When an error is over: as the rank begins a save, or as it has finished a step."""

    @property
    def save(self) -> int | None:
        """The ordinal of the save."""

    @property
    def step(self) -> int | None:
        """The training step."""
