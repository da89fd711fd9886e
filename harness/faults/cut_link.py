"""A node that does not reach the others any more."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from harness.faults.base import Fault
from harness.part import Part


class Cutting(Part):
    """Whose cable is pulled, and for how long."""

    node: int = Field(1, ge=0, le=1)
    seconds: float | None = Field(None, gt=0, description="default: it is never put back")


class CutLink(Fault):
    """One node does not reach the others any more; the checkpoint directory it does."""

    word: ClassVar[str] = "cut_link"
    cut_link: Cutting
