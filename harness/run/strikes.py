"""Decides which strike is due at an operation, a step or a period. Pure: it only counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from harness.faults.answers import meets
from harness.faults.point import Point
from harness.faults.strike import Strike


class Occasion(NamedTuple):
    """An operation that a rank is about to carry out, in the terms of a point."""

    rank: int
    kind: str
    path: str
    target: str | None
    save: int | None
    phase: str | None


def matches(point: Point, occasion: Occasion) -> bool:
    """Whether an operation is one of those that a point counts."""
    if point.rank != occasion.rank or point.save not in (None, occasion.save):
        return False
    if point.phase not in (None, occasion.phase):
        return False
    if point.operation not in (None, _word(point, occasion)):
        return False
    if point.path is None:
        return True
    names = (occasion.path, occasion.target or occasion.path)
    return any(fnmatchcase(name, point.path) for name in names)


def _word(point: Point, occasion: Occasion) -> str:
    """Returns the operation's name in points: in the phase `load` an `open` is for reading."""
    opens = point.phase == "load" and occasion.kind == "open_read"
    return "open" if opens else occasion.kind


def meets_reads(strikes: Iterable[Strike]) -> bool:
    """Whether each read must be seen: a strike falls on one, or a lasting error can."""
    return any(
        one.point.phase == "load" and (one.point.operation == "read" or one.fault.repeats)
        for one in strikes
    )


def _counts(strike: Strike, occasion: Occasion) -> bool:
    """Acts like `matches`, but an error only counts operations that could answer it."""
    error = strike.fault.answers
    if error is not None and strike.point.operation is None:
        return meets(error, occasion.kind) and matches(strike.point, occasion)
    return matches(strike.point, occasion)


@dataclass(slots=True)
class Due:
    """Counts the points of one run; each strike is due once."""

    _waiting: list[Strike]
    _seen: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, strikes: Iterable[Strike]) -> Due:
        """Returns a fresh count for the strikes of one run."""
        return cls(list(strikes))

    def at_operation(self, occasion: Occasion) -> tuple[Strike, ...]:
        """Returns the strikes at this operation; each of them says whether before or after it."""
        return self._nth(
            [s for s in self._waiting if s.point.is_operation and _counts(s, occasion)]
        )

    def at_step(self, rank: int, step: int) -> tuple[Strike, ...]:
        """Returns the strikes that wait for `rank` to finish `step`."""
        return self._take(
            [s for s in self._waiting if s.point.step == step and s.point.rank == rank]
        )

    def at_period(self, rank: int, period: str) -> tuple[Strike, ...]:
        """Returns the strikes that wait for `rank` to enter `period`."""
        return self._nth(
            [s for s in self._waiting if s.point.during == period and s.point.rank == rank]
        )

    def _nth(self, met: list[Strike]) -> tuple[Strike, ...]:
        """Counts one more occasion for each of these; returns those that waited for it."""
        for strike in met:
            self._seen[strike.id] = self._seen.get(strike.id, 0) + 1
        return self._take([one for one in met if self._seen[one.id] == one.point.nth])

    def _take(self, due: list[Strike]) -> tuple[Strike, ...]:
        for strike in due:
            self._waiting.remove(strike)
        return tuple(due)
