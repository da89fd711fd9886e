"""Refuses impossible uses of mounts and of a second host in a well-formed scenario."""

from __future__ import annotations

from collections.abc import Iterator

from harness.faults.actions import Relocate
from harness.part import Place
from harness.scenario.schema import Run, Scenario


def has_other_host(run: Run) -> bool:
    """Whether ranks of this run live on the other host."""
    return run.host == "other" or any(fault.second_host == "other" for fault in run.faults)


def find_impossible_hosts(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """Yields everything that cannot be combined with the harness's own mounts."""
    spread = [number for number, run in enumerate(scenario.runs) if has_other_host(run)]
    if scenario.filesystem is None and not spread:
        return
    place: Place = ("filesystem",) if scenario.filesystem is not None else ("runs", spread[0])
    if not scenario.launcher.is_local:
        yield place, "mounts need ranks that the harness starts: set `launcher: local`"
    if scenario.explore is not None:
        yield place, "an exploration runs its jobs on a plain directory: leave mounts out"
    for number, run in enumerate(scenario.runs):
        if (run.world or scenario.world).nodes > 1:
            yield ("runs", number), "`world.nodes: 2` is for one host: leave one of the two out"
        for n, fault in enumerate(run.faults):
            if fault.needs_plain_directory:
                text = "a power cut needs a disk that the ranks see directly"
                yield ("runs", number, "faults", n), f"{text}: leave mounts out"
        for n, action in enumerate(run.before):
            if isinstance(action, Relocate):
                text = "the directory is mounted: it cannot be relocated"
                yield ("runs", number, "before", n), text
