"""Shrinks: tries simpler scenarios, boldest first, and keeps each one that still fails alike.

Pure but for the question that it asks, `shows`: which of some scenarios fail in the same way. It is
asked several at once, because each answer is a real run. Nothing is asked twice, and nothing that
the reader of scenarios would refuse is asked at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pydantic import ValidationError

from harness.report.title import titled
from harness.scenario.possible import find_impossible
from harness.scenario.schema import Scenario
from harness.shrink.simplify_faults import simpler_faults
from harness.shrink.simplify_runs import fewer_happenings, fewer_ranks, fewer_runs, fewer_steps
from harness.shrink.simplify_settings import less_frozen, simpler_mode, usual_settings
from harness.shrink.size import size_of

Shows = Callable[[Sequence[Scenario]], Sequence[bool]]
IsOver = Callable[[], bool]

PASSES = (
    fewer_runs,
    fewer_happenings,
    fewer_ranks,
    less_frozen,
    simpler_mode,
    fewer_steps,
    usual_settings,
    simpler_faults,
)
"""What saves most time in later runs comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """`kept` are the scenarios on the way, the smallest last; the first is where it began.

    `is_complete` is False where time was over before nothing helped any more.
    """

    kept: tuple[Scenario, ...]
    tried: int
    is_complete: bool

    @property
    def smallest(self) -> Scenario:
        """Where it ended."""
        return self.kept[-1]


def shrink(start: Scenario, shows: Shows, *, at_once: int, is_over: IsOver) -> Shrunk:
    """The smallest scenario found that still shows what `start` shows."""
    search = _Search(start, shows, at_once, is_over)
    while search.round():
        pass
    return Shrunk(kept=tuple(search.kept), tried=len(search.asked), is_complete=not is_over())


class _Search:
    """One shrink under way."""

    def __init__(self, start: Scenario, shows: Shows, at_once: int, is_over: IsOver) -> None:
        self.kept = [start]
        self.asked: set[Scenario] = {_nameless(start)}
        self._shows, self._at_once, self._is_over = shows, at_once, is_over

    def round(self) -> bool:
        """Every simplification once until it helps no more; whether any has helped."""
        before = len(self.kept)
        for simplify in PASSES:
            while self._improves(simplify):
                pass
        return len(self.kept) > before and not self._is_over()

    def _improves(self, simplify: Callable[[Scenario], Iterator[Scenario]]) -> bool:
        candidates = self._candidates(simplify)
        while not self._is_over() and (some := list(islice(candidates, self._at_once))):
            for candidate, same in zip(some, self._shows(some), strict=True):
                if same:
                    self.kept.append(candidate)
                    return True
        return False

    def _candidates(self, simplify: Callable[[Scenario], Iterator[Scenario]]) -> Iterator[Scenario]:
        current = self.kept[-1]
        size = size_of(current)
        for candidate in simplify(current):
            key = _nameless(candidate)
            if key not in self.asked and size_of(candidate) < size:
                self.asked.add(key)
                named = titled(candidate)
                if is_readable(named):
                    yield named


def is_readable(scenario: Scenario) -> bool:
    """Whether the scenario would be accepted if it stood in a file."""
    try:
        # Copies with changes were not checked when they were made. Files spell out no defaults.
        checked = Scenario.model_validate(scenario.model_dump(exclude_defaults=True))
    except ValidationError:
        return False
    return not any(find_impossible(checked, gpus=0))


def _nameless(scenario: Scenario) -> Scenario:
    return scenario.model_copy(update={"name": "-"})
