"""Chooses which cells of the table to run. Pure, and random only by a seed.

Always: each bug with the scenario that must catch it, and each control with every scenario that it
takes part in. In addition, either a sample of scenarios for each bug, or all of them. A bug only
runs with scenarios in which its base, the control that it changes, takes part: elsewhere a red
verdict would not come from the bug.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from random import Random

from harness.mutants.catalogue import Bug, Catalogue, Control
from harness.mutants.cell import Key
from harness.mutants.given import Given
from harness.plan.asked import not_promised
from harness.plan.make import make_plan
from harness.plan.model import Implementation

Participation = Mapping[str, Collection[str]]
"""The scenarios that each control takes part in, by name."""


def named_keys(catalogue: Catalogue) -> tuple[Key, ...]:
    """Pairs each bug with its own scenario."""
    return tuple((bug.implementation, bug.scenario) for bug in catalogue.bugs)


def participation(catalogue: Catalogue, given: Sequence[Given]) -> Participation:
    """Returns the scenarios in which each control can be accused of something."""
    return {
        one.implementation: [scenario.name for scenario in given if _takes_part(one, scenario)]
        for one in catalogue.correct
    }


def _takes_part(control: Control, given: Given) -> bool:
    if control.reason(given.name) is not None:
        return False
    named = Implementation(name=control.implementation, promises=control.promises)
    plan = make_plan(given.scenario, source=given.name, implementation=named)
    return not_promised(plan, given.scenario.explore) is None


def correct_keys(part: Participation) -> tuple[Key, ...]:
    """Pairs each control with every scenario that it takes part in."""
    return tuple((control, name) for control, names in part.items() for name in names)


def sample_keys(
    catalogue: Catalogue, given: Sequence[Given], *, size: int | None, seed: int
) -> tuple[Key, ...]:
    """Pairs each bug with a sample of other scenarios, or all; explorations are too expensive."""
    found: list[Key] = []
    part = participation(catalogue, given)
    for bug in catalogue.bugs:
        names = [
            one.name
            for one in given
            if one.scenario.explore is None
            and _applies(catalogue.base_of(bug), bug, one.name, part)
        ]
        if size is not None and size < len(names):
            names = sorted(Random(f"{seed} {bug.implementation}").sample(names, size))
        found += [(bug.implementation, name) for name in names]
    return tuple(found)


def _applies(base: Control, bug: Bug, scenario: str, part: Participation) -> bool:
    """Whether a red verdict would come from the bug, and not already from its base."""
    return scenario == bug.scenario or scenario in part[base.implementation]


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
    part = participation(catalogue, [scenario])
    able: Iterator[Bug] = (
        bug
        for bug in catalogue.bugs
        # A hanging bug costs a whole deadline and shows little about a scenario.
        if bug.outcome != "HANG" and _applies(catalogue.base_of(bug), bug, scenario.name, part)
    )
    found = list(able)
    Random(f"{seed} {scenario.name}").shuffle(found)
    return found
