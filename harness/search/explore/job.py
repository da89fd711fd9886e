"""The scope of an exploration and its parts; known before anything has run."""

from __future__ import annotations

from dataclasses import dataclass

from harness.scenario.exploration import Explore
from harness.scenario.schema import Scenario

PART_POINTS = 12
"""Strikes in one part: some 15 s on an idle core, so that two workers end together."""
LONG_PARTS = 4
"""Parts of an exploration without a budget, whose points are not known before it is recorded."""


def count_parts(budget: int | None) -> int:
    """How many parts an exploration has; known before anything has run."""
    return LONG_PARTS if budget is None else -(-budget // PART_POINTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """The scenario that is explored, and how messages name its file."""

    scenario: Scenario
    shown: str

    @property
    def explore(self) -> Explore:
        """The settings of the exploration."""
        assert self.scenario.explore is not None, "only such scenarios are explored"
        return self.scenario.explore

    @property
    def filesystem(self) -> str | None:
        """Whose power is cut, by the exploration or by the scenario itself, if any is."""
        faults = [fault for run in self.scenario.runs for fault in run.faults]
        cuts = [fault.disk for fault in faults if fault.disk is not None]
        if "power_cut" in self.explore.chosen_faults:
            cuts.append(self.explore.power_cut.filesystem)
        return cuts[0] if cuts else None
