"""Chooses which cells of the table to run. Pure, and random only by a seed.

Always: each bug with the scenario that must catch it, and each control with every scenario that it
takes part in. In addition, either a sample of scenarios for each bug, or all of them. A bug only
runs with scenarios in which its base, the control that it changes, takes part: elsewhere a red
verdict would not come from the bug.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from harness.mutants.catalogue import Bug, Catalogue
from harness.mutants.cell import Key
from harness.mutants.given import Given


def named_keys(catalogue: Catalogue) -> tuple[Key, ...]:
    """Pairs each bug with its own scenario."""
    return tuple((bug.implementation, bug.scenario) for bug in catalogue.bugs)


def correct_keys(catalogue: Catalogue, given: Sequence[Given]) -> tuple[Key, ...]:
    """Pairs each control with every scenario that it takes part in."""
    return tuple(
        (one.implementation, scenario.name)
        for one in catalogue.correct
        for scenario in given
        if one.reason(scenario.name) is None
    )


def sample_keys(
    catalogue: Catalogue, given: Sequence[Given], *, size: int | None, seed: int
) -> tuple[Key, ...]:
    """Pairs each bug with a sample of other scenarios, or all; explorations are too expensive."""
    found: list[Key] = []
    for bug in catalogue.bugs:
        names = [
            one.name
            for one in given
            if one.scenario.explore is None and catalogue.applies(bug, one.name)
        ]
        if size is not None and size < len(names):
            names = sorted(Random(f"{seed} {bug.implementation}").sample(names, size))
        found += [(bug.implementation, name) for name in names]
    return tuple(found)


def candidates(catalogue: Catalogue, scenario: Given, *, seed: int) -> tuple[str, ...]:
    """Returns the bugs that a scenario could catch: of the same file, then of the same area."""

    def distance(bug: Bug) -> int:
        if bug.scenario.partition("::")[0] == scenario.file:
            return 0
        return 1 if bug.scenario.startswith(f"{scenario.folder}/") else 2

    return tuple(
        bug.implementation for bug in sorted(_able(catalogue, scenario, seed), key=distance)
    )


def _able(catalogue: Catalogue, scenario: Given, seed: int) -> list[Bug]:
    able: Iterator[Bug] = (
        bug
        for bug in catalogue.bugs
        # A hanging bug costs a whole deadline and shows little about a scenario.
        if catalogue.applies(bug, scenario.name) and bug.outcome != "HANG"
    )
    found = list(able)
    Random(f"{seed} {scenario.name}").shuffle(found)
    return found
