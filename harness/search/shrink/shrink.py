"""Shrinks: tries simpler scenarios, boldest first, and keeps each one that still fails alike.

Pure but for the question that it asks, `shows`: which of some scenarios fail in the same way. It
asks about several at once, because each answer is a real run. It asks nothing twice, and nothing
that the reader of scenarios would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from harness.report.title import titled
from harness.scenario.possible import find_impossible
from harness.scenario.schema import Scenario
from harness.search.shrink.simplify_faults import simpler_faults
from harness.search.shrink.simplify_runs import (
    fewer_happenings,
    fewer_ranks,
    fewer_runs,
    fewer_steps,
)
from harness.search.shrink.simplify_settings import (
    less_frozen,
    simpler_mode,
    usual_job,
    usual_settings,
)
from harness.search.shrink.size import size_of

Shows = Callable[[Sequence[Scenario]], Sequence[bool]]
IsOver = Callable[[], bool]

PASSES = (
    fewer_runs,
    fewer_happenings,
    usual_job,
    fewer_ranks,
    less_frozen,
    simpler_mode,
    fewer_steps,
    usual_settings,
    simpler_faults,
)
"""Simplifications, the one that saves most time in later runs first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """`kept` are the scenarios on the way, the smallest last; the first is the original.

    `is_complete` is False if the time was up while simplifications could still have helped.
    """

    kept: tuple[Scenario, ...]
    tried: int
    is_complete: bool

    @property
    def smallest(self) -> Scenario:
        """The last scenario that was kept."""
        return self.kept[-1]


def shrink(start: Scenario, shows: Shows, *, at_once: int, is_over: IsOver) -> Shrunk:
    """Returns the smallest scenario found that still shows what `start` shows."""
    search = _Search(start, shows, at_once, is_over)
    while search.round():
        pass
    return Shrunk(kept=tuple(search.kept), tried=search.tried, is_complete=not is_over())


Simplify = Callable[[Scenario], Iterator[Scenario]]


class _Search:
    """One shrink under way."""

    def __init__(self, start: Scenario, shows: Shows, at_once: int, is_over: IsOver) -> None:
        self.kept = [start]
        self.tried = 0
        self._answers: dict[Scenario, bool] = {_nameless(start): True}
        self._shows, self._at_once, self._is_over = shows, at_once, is_over

    def round(self) -> bool:
        """Try every simplification until it no longer helps; returns whether any has helped."""
        before = len(self.kept)
        for simplify in PASSES:
            while self._improves(simplify):
                pass
        return len(self.kept) > before and not self._is_over()

    def _improves(self, simplify: Simplify) -> bool:
        some: list[Scenario] = []
        for candidate in self._candidates(simplify):
            some.append(candidate)
            # One that was tried together with a bolder one is known to show it already.
            if _nameless(candidate) in self._answers or len(some) == self._at_once:
                if self._takes(some):
                    return True
                some = []
        return self._takes(some)

    def _candidates(self, simplify: Simplify) -> Iterator[Scenario]:
        current = self.kept[-1]
        size = size_of(current)
        seen: set[Scenario] = set()
        for candidate in simplify(current):
            key = _nameless(candidate)
            if key in seen or not self._answers.get(key, True) or size_of(candidate) >= size:
                continue
            seen.add(key)
            named = titled(candidate)
            if is_readable(named):
                yield named

    def _takes(self, some: Sequence[Scenario]) -> bool:
        """Ask about those whose answer is unknown, and keep the first that shows it."""
        if self._is_over():
            return False
        unknown = [one for one in some if _nameless(one) not in self._answers]
        if unknown:
            self.tried += len(unknown)
            answers = zip(unknown, self._shows(unknown), strict=True)
            self._answers.update((_nameless(one), same) for one, same in answers)
        for one in some:
            if self._answers[_nameless(one)]:
                self.kept.append(one)
                return True
        return False


def is_readable(scenario: Scenario) -> bool:
    """Whether the scenario would be accepted from a file."""
    try:
        # Copies with changes were not checked when they were made. Files do not contain defaults.
        checked = Scenario.model_validate(scenario.model_dump(exclude_defaults=True))
    except ValidationError:
        return False
    return not any(find_impossible(checked, gpus=0))


def _nameless(scenario: Scenario) -> Scenario:
    return scenario.model_copy(update={"name": "-"})
