"""The effect of storage faults on the later operations of a rank."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from harness.faults.answers import meets
from harness.faults.effects import Healing, PlannedStrike, Treatment


@dataclass(slots=True)
class _Failing:
    strike: PlannedStrike
    error: str
    left: int | None
    until: Healing | None


@dataclass(slots=True)
class StorageFaults:
    """The faults under way in one run, by rank."""

    _failing: dict[int, _Failing] = field(default_factory=dict)

    def fail(
        self, strike: PlannedStrike, error: str, left: int | None, until: Healing | None
    ) -> None:
        """Make later operations of the rank fail, too: this many, or until it is healed."""
        self._failing[strike.ranks[0]] = _Failing(strike, error, left, until)

    def heal(self, rank: int, *, save: int = 0, step: int = 0) -> PlannedStrike | None:
        """Note that a rank begins a save or finished a step; returns the strike that this heals."""
        failing = self._failing.get(rank)
        until = None if failing is None else failing.until
        if failing is None or until is None:
            return None
        if not (until.save is not None and save >= until.save) and not (
            until.step is not None and step >= until.step
        ):
            return None
        del self._failing[rank]
        return failing.strike

    def later(self, rank: int, kind: str) -> Treatment | None:
        """Returns the treatment of an operation that no strike falls on."""
        failing = self._failing.get(rank)
        if failing is None or failing.left == 0 or not meets(failing.error, kind):
            return None
        if failing.left is not None:
            failing.left -= 1
        return Treatment(kind="fail", error=getattr(errno, failing.error))
