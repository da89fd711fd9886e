"""Measures how large a scenario is: a smaller one is understood sooner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.scenario.schema import Scenario

Size = tuple[int, ...]
_MODES = ("disabled", "async", "async_with_pinned_mem")


def size_of(scenario: Scenario) -> Size:
    """Compared from left to right: runs, events, ranks, mode, settings, and their numbers.

    A setting is whatever the file would spell out because it is not the default.
    """
    values = scenario.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    leaves = list(_leaves(values))
    happenings = sum(len(run.faults) + len(run.before) for run in scenario.runs)
    worlds = [scenario.world, *(run.world for run in scenario.runs if run.world is not None)]
    return (
        len(scenario.runs),
        happenings,
        max(world.size for world in worlds),
        sum(world.size for world in worlds),
        _MODES.index(scenario.checkpoint.async_mode),
        len(leaves),
        sum(abs(round(10 * one)) for one in leaves if isinstance(one, int | float)),
        sum(len(one) for one in leaves if isinstance(one, str)),
    )


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
