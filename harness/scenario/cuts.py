"""Refuses impossible power cuts in a well-formed scenario."""

from __future__ import annotations

from collections.abc import Iterator

from harness.faults.actions import Relocate
from harness.part import Place
from harness.scenario.schema import Scenario


def find_impossible_cuts(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """Yields every power cut that cannot happen, and what cannot happen beside one."""
    cuts: list[tuple[Place, str]] = [
        (("runs", number, "faults", n, fault.word), fault.disk)
        for number, run in enumerate(scenario.runs)
        for n, fault in enumerate(run.faults)
        if fault.disk is not None
    ]
    explore = scenario.explore
    if explore is not None and "power_cut" in explore.chosen_faults:
        cuts.append((("explore", "power_cut"), explore.power_cut.filesystem))
    for place, filesystem in cuts:
        if filesystem != cuts[0][1]:
            text = f"the checkpoint directory of this scenario is already on {cuts[0][1]}"
            yield (*place, "filesystem"), text
    yield from _relocated(scenario, cuts)


def _relocated(scenario: Scenario, cuts: list[tuple[Place, str]]) -> Iterator[tuple[Place, str]]:
    for number, run in enumerate(scenario.runs):
        for n, action in enumerate(run.before):
            if cuts and isinstance(action, Relocate):
                text = "the directory is on a disk image whose power is cut"
                yield ("runs", number, "before", n), f"{text}: it cannot be relocated"
