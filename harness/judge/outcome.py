"""Defines how a whole scenario can end, and which outcome wins when several apply."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Outcome(StrEnum):
    """How a scenario ended."""

    PASS = "PASS"
    HARD_FAIL = "HARD_FAIL"
    """The job raised, or would have when it resumed from one of the instants."""
    SILENT_DIVERGENCE = "SILENT_DIVERGENCE"
    """It resumed with another state than it had saved."""
    LOST_WORK = "LOST_WORK"
    """It resumed from an older checkpoint than needed, or one was deleted too early."""
    HANG = "HANG"
    LEAK = "LEAK"
    """Something outlived the run."""
    INVALID = "INVALID"
    """Nothing was proved: a fault did not strike, or a judge saw nothing or has no verdict."""


_WORST_FIRST = (
    Outcome.HANG,
    Outcome.HARD_FAIL,
    Outcome.SILENT_DIVERGENCE,
    Outcome.LOST_WORK,
    Outcome.LEAK,
)


def worst(
    *, failed_guards: Iterable[Outcome], violated: Iterable[Outcome], unknown: int
) -> Outcome:
    """Returns the outcome of a scenario from its guards and verdicts.

    A guard that says INVALID comes first, because then no verdict has a foundation. `unknown`
    counts unknown verdicts and guards for strikes that did not fire: they are red as well, but hide
    no violation that was seen.
    """
    guards = set(failed_guards)
    if Outcome.INVALID in guards:
        return Outcome.INVALID
    seen = guards | set(violated)
    for outcome in _WORST_FIRST:
        if outcome in seen:
            return outcome
    return Outcome.INVALID if unknown or Outcome.INVALID in seen else Outcome.PASS
