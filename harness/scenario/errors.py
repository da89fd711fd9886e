"""Errors in scenario files: the user's mistakes, each with its place and a way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from harness.part import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake. `line` counts from 1; None if the file has no such line."""

    line: int | None
    place: Place
    text: str


class ScenarioError(Exception):
    """A scenario file cannot be used. The text says where, what was found, and what is possible.

    All problems of a file are listed at once, one a line, in the order of the file.
    """

    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__("\n".join(self._sentence(problem) for problem in self.problems))

    def _sentence(self, problem: Problem) -> str:
        where = self.path if problem.line is None else f"{self.path}:{problem.line}"
        dotted = show_place(problem.place)
        return f"{where}: {dotted}: {problem.text}" if dotted else f"{where}: {problem.text}"


def show_place(place: Place) -> str:
    """Formats a place as people write it: `runs[0].faults[1].at`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def choices(found: object, known: Iterable[str]) -> str:
    """Formats the possible words, and the one that was probably meant, to end a sentence with."""
    words = tuple(known)
    near = difflib.get_close_matches(str(found), words, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"known: {', '.join(words)}{hint}"
