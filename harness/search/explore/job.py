"""The scope of an exploration and its parts, which are known before anything has run."""

from __future__ import annotations

from dataclasses import dataclass

from harness.scenario.exploration import Explore
from harness.scenario.schema import Scenario

PART_POINTS = 12
"""Strikes in one part: some 15 s on an idle core, so that two workers end together."""
LONG_PARTS = 4
"""Parts of an exploration without a budget, whose points are unknown before its baseline trace."""


def count_parts(budget: int | None) -> int:
    """Returns how many parts an exploration has, before anything has run."""
    return LONG_PARTS if budget is None else -(-budget // PART_POINTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """The explored scenario, and the name of its file in messages."""

    scenario: Scenario
    shown: str

    @property
    def explore(self) -> Explore:
        """The settings of the exploration."""
        assert self.scenario.explore is not None, "only such scenarios are explored"
        return self.scenario.explore

    @property
    def filesystem(self) -> str | None:
        """The file system whose power is cut, by the exploration or by the scenario, if any."""
        faults = [fault for run in self.scenario.runs for fault in run.faults]
        cuts = [fault.disk for fault in faults if fault.disk is not None]
        if "power_cut" in self.explore.chosen_faults:
            cuts.append(self.explore.power_cut.filesystem)
        return cuts[0] if cuts else None
