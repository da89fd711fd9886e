"""SIGTERM, and after a grace SIGKILL."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.faults.base import Fault, Target


class Terminating(Target):
    """Which rank is asked to end, and how long it may take before it is killed."""

    grace_s: float | None = Field(
        None, gt=0, description="SIGKILL for those that are alive then; default: none follows"
    )


class Sigterm(Fault):
    """SIGTERM, as a cluster scheduler sends it before it takes the machine."""

    word: ClassVar[str] = "sigterm"
    sigterm: Terminating
