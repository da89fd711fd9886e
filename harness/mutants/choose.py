"""Which cells of the table are run. Pure, and without chance but for a seed.

Always: each bug with the scenario that has to catch it, and each control with every scenario
that it takes part in. Beyond that either a sample of so many scenarios for each bug, or all of
them. A bug is only run with scenarios in which its base, the control that it changes,
takes part: elsewhere a red verdict would not be the bug's doing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from harness.mutants.catalogue import Bug, Catalogue
from harness.mutants.cell import Key
from harness.mutants.given import Given


def named_keys(catalogue: Catalogue) -> tuple[Key, ...]:
    """Each bug with its own scenario."""
    return tuple((bug.implementation, bug.scenario) for bug in catalogue.bugs)


def correct_keys(catalogue: Catalogue, given: Sequence[Given]) -> tuple[Key, ...]:
    """Each control with what it takes part in."""
    return tuple(
        (one.implementation, scenario.name)
        for one in catalogue.correct
        for scenario in given
        if one.reason(scenario.name) is None
    )


def sample_keys(
    catalogue: Catalogue, given: Sequence[Given], *, size: int | None, seed: int
) -> tuple[Key, ...]:
    """Each bug with so many other scenarios, or with all; an exploration is many runs, so none."""
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
    """The bugs that a scenario may catch: those of the same file, then of the same area."""

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
        # One that hangs costs a deadline and shows little of a scenario.
        if catalogue.applies(bug, scenario.name) and bug.outcome != "HANG"
    )
    found = list(able)
    Random(f"{seed} {scenario.name}").shuffle(found)
    return found
