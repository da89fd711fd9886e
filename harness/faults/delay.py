"""An operation that takes long."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.faults.base import OneRank, OperationFault


class Pausing(OneRank):
    """How long the operation takes."""

    seconds: float = Field(gt=0)


class Delay(OperationFault):
    """One operation takes long; other ranks and threads go on."""

    word: ClassVar[str] = "delay"
    delay: Pausing
