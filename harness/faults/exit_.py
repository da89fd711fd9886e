"""`sys.exit()` in the training loop."""

from __future__ import annotations

from typing import ClassVar

from harness.faults.base import LoopFault, Target


class Exit(LoopFault):
    """`sys.exit()`: the interpreter ends in order, whatever is still under way."""

    word: ClassVar[str] = "exit"
    exit: Target
