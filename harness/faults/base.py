"""What all faults have in common: the word, the point, and whom they hit."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from harness.faults.point import Point
from harness.part import Part

AnyRank = int | Literal["all"]


def expression(text: str) -> str:
    """A regular expression, checked."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


class Target(Part):
    """Which rank a fault hits."""

    rank: AnyRank = "all"


class OneRank(Part):
    """The one rank whose operation a fault hits."""

    rank: int


class Fault(Part):
    """Something that is injected, and where. The field that `word` names says whom it hits."""

    word: ClassVar[str]
    """How files spell it."""

    at: Point

    @property
    def settings(self) -> Any:
        """What stands beside the word."""
        return getattr(self, self.word)


class OperationFault(Fault):
    """Base of the faults that hit one operation of one rank, instead of or around it."""

    @model_validator(mode="after")
    def _hits_an_operation(self) -> OperationFault:
        if self.at.step is not None:
            raise ValueError(f"`{self.word}` hits an operation: its point has `save`, not `step`")
        if self.at.when == "after":
            raise ValueError(f"`{self.word}` hits the operation itself: `when: after` is too late")
        if self.at.rank not in (None, self.settings.rank):
            raise ValueError(f"`{self.word}` hits the rank at the point: leave `at.rank` out")
        return self


class LoopFault(Fault):
    """Base of the faults that a rank carries out itself when it has finished a step."""

    @model_validator(mode="after")
    def _falls_in_the_loop(self) -> LoopFault:
        if self.at.step is None or self.at.once_published:
            raise ValueError(
                f"`{self.word}` falls in the training loop: its point has `step` alone"
            )
        if self.at.rank is not None:
            raise ValueError(f"`{self.word}` falls in the rank that it hits: leave `at.rank` out")
        return self
