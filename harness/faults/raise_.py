"""An exception in the training loop."""

from __future__ import annotations

from typing import ClassVar, Literal

from harness.faults.base import LoopFault, OneRank
from harness.words import EXCEPTIONS


class Raising(OneRank):
    """In whose training loop what is raised."""

    error: Literal[EXCEPTIONS] = "RuntimeError"  # type: ignore[valid-type]


class Raise(LoopFault):
    """An exception that nobody catches: the interpreter of that rank shows it and ends."""

    word: ClassVar[str] = "raise"
    # `raise` is a word of Python, so it cannot be annotated as the others are.
    __annotations__["raise"] = Raising.__name__
