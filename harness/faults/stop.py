"""SIGSTOP, and SIGCONT."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.faults.base import Fault, Target


class Stopping(Target):
    """Which rank stands still, and for how long."""

    seconds: float = Field(gt=0)


class Stop(Fault):
    """SIGSTOP, and SIGCONT some seconds later: a rank that hangs and comes back."""

    word: ClassVar[str] = "stop"
    stop: Stopping
