"""The lines in which a command says which step it has made."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from harness.run.command.command import CommandError

USUAL = r"(?i)\b(?:global[ _])?(?:step|iter(?:ation)?)\b\W{0,3}(\d+)"
"""Finds the number in `step 3`, `Step: 3`, `step=3`, `iteration 3`, `'step': 3`."""
_FEWEST = 2
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?|\b(?:nan|inf)\b")


@dataclass(frozen=True, slots=True)
class StepLine:
    """One line, and the step that it is about."""

    step: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLines:
    """The step lines of an uninterrupted run, and how those of other runs are told from what else
    has a step in it: they have the same words between their numbers."""

    expression: str
    wording: str
    lines: tuple[StepLine, ...]

    def of(self, text: str) -> list[StepLine]:
        """Returns the step lines in the output of a run."""
        return [one for one in _matching(text, self.expression) if _words(one) == self.wording]

    def first(self, text: str) -> int | None:
        """Returns the first step that a run made; None if its output has none."""
        return next((one.step for one in self.of(text)), None)

    def first_difference(self, text: str) -> StepLine | None:
        """Returns the first line that is not the one that the uninterrupted run has of its step."""
        usual = {one.step: one for one in self.lines}
        return next((one for one in self.of(text) if usual.get(one.step) != one), None)


def check_expression(expression: str) -> None:
    """Raises CommandError if an expression of the user finds no number."""
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        raise CommandError(
            f"`--step-line {expression}` is no regular expression: {error}"
        ) from None
    if not groups:
        raise CommandError(
            f"`--step-line {expression}` finds no number: put that of the step in a group, as in "
            r"`step (\d+)`"
        )


def learn_step_lines(text: str, expression: str | None = None) -> StepLines | None:
    """Returns the step lines of an uninterrupted run, if it has such lines.

    Of the lines that match, those with the most common wording count; their steps must increase by
    the same amount from line to line, unless the user gave the expression. Several ranks can say
    the same of a step.
    """
    found = list(dict.fromkeys(_matching(text, expression or USUAL)))
    usual = Counter(map(_words, found)).most_common(1)
    if not usual:
        return None
    wording = usual[0][0]
    lines = tuple(one for one in found if _words(one) == wording)
    distances = {after.step - before.step for before, after in pairwise(lines)}
    regular = len(lines) >= _FEWEST and len(distances) == 1 and min(distances) > 0
    if expression is None and not regular:
        return None
    return StepLines(expression=expression or USUAL, wording=wording, lines=lines)


def _matching(text: str, expression: str) -> list[StepLine]:
    pattern = re.compile(expression)
    found = ((pattern.search(line), line) for line in text.splitlines())
    numbered = [(one, line) for one, line in found if one is not None and one[1].isdecimal()]
    return [StepLine(int(one[1]), line.strip()) for one, line in numbered]


def _words(line: StepLine) -> str:
    """Returns the line without its numbers."""
    return _NUMBER.sub("#", line.text)
