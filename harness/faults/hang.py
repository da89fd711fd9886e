"""An operation that never returns."""

from __future__ import annotations

from typing import ClassVar

from harness.faults.base import OneRank, OperationFault


class Hang(OperationFault):
    """One operation never returns; only SIGKILL ends the thread that waits for it."""

    word: ClassVar[str] = "hang"
    hang: OneRank
