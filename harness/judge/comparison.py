"""Compares a failure that was replayed with its earlier result. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harness.judge.judge import Judgement
from harness.judge.outcome import Outcome


class Answer(StrEnum):
    """The answer of a replay."""

    FIXED = "FIXED"
    """It was red, and every property holds now."""
    SAME = "SAME"
    """The same outcome, and the same properties and guards are broken."""
    OTHER = "OTHER"
    """Another outcome, or something else is broken."""
    INVALID = "INVALID"
    """The replay proved nothing, so it says nothing about the failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The result of a failure, in the words that are compared and printed.

    `broken` names the properties that were violated and the guards that failed. `resumed` has one
    text for each run after the first. It is reported but not compared, because a background save
    may or may not be done when a strike falls in the training loop. `idle` names the properties
    that do not apply: one that was broken and cannot be judged now is not fixed.
    """

    outcome: Outcome
    broken: tuple[str, ...]
    resumed: tuple[str, ...]
    idle: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.outcome} ({', '.join(self.broken) or 'nothing broken'})"


def know(judgement: Judgement) -> Known:
    """Returns the part of a judgement that is compared."""
    idle = tuple(one.property for one in judgement.verdicts if not one.applies())
    return Known(
        outcome=judgement.outcome, broken=judgement.broken, resumed=judgement.resumed, idle=idle
    )


def compare(before: Known, now: Known) -> Answer:
    """Returns the replay's answer about the failure."""
    if now.outcome is Outcome.INVALID or set(before.broken) & set(now.idle):
        return Answer.INVALID
    if now.outcome is Outcome.PASS and before.outcome is not Outcome.PASS:
        return Answer.FIXED
    same = now.outcome is before.outcome and set(now.broken) == set(before.broken)
    return Answer.SAME if same else Answer.OTHER


def describe_answer(before: Known, now: Known) -> str:
    """Formats the answer in one line, with both results."""
    answer = compare(before, now)
    line = f"{answer}: it was {before}"
    if answer is not Answer.SAME:
        line += f", now it is {now}"
    if before.resumed != now.resumed:
        was, is_now = "; ".join(before.resumed) or "nothing", "; ".join(now.resumed) or "nothing"
        line += f"; it resumed from {was} then, from {is_now} now"
    return line
