"""SIGKILL of ranks."""

from __future__ import annotations

from typing import ClassVar

from harness.faults.base import Fault, Target


class Kill(Fault):
    """SIGKILL: no buffer is flushed, no `finally` runs."""

    word: ClassVar[str] = "kill"
    kill: Target
