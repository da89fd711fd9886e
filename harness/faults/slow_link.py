"""A node whose link carries less."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.faults.base import Fault
from harness.part import Part


class Slowing(Part):
    """Whose link carries less from then on."""

    node: int = Field(1, ge=0, le=1)
    kbit_s: int = Field(ge=64)


class SlowLink(Fault):
    """The way to one node carries less from then on."""

    word: ClassVar[str] = "slow_link"
    slow_link: Slowing
