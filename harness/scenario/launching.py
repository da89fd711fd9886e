"""Refuses impossible uses of a launcher in a well-formed scenario."""

from __future__ import annotations

from collections.abc import Iterator

from harness.part import Place
from harness.scenario.schema import Scenario

_OWN_SETTINGS = ("until_step", "load_step", "world", "freeze", "ignore_freeze_mismatch")
"""Settings that are fixed when a job starts, and the same when it is restarted in place."""


def find_impossible_launch(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """Yields every combination of a launcher with something that it does not support."""
    launcher, place = scenario.launcher, ("launcher",)
    yield from _time_limits(scenario)
    if launcher.is_local:
        if launcher.restarts:
            yield (*place, "restarts"), "the local launcher restarts no rank: use torchrun"
        return
    if scenario.explore is not None:
        yield place, "an exploration starts hundreds of jobs: leave `launcher` out"
    if launcher.restarts >= len(scenario.runs):
        text = f"{launcher.restarts} restarts need as many further runs"
        yield (*place, "restarts"), f"{text}: `runs` has {len(scenario.runs)}"
    if launcher.kind == "slurm" and scenario.world.nodes > 1:
        yield place, "slurm has one node here: use torchrun, or leave `world.nodes` out"
    for number, run in enumerate(scenario.runs):
        for n, fault in enumerate(run.faults):
            if fault.needs_own_ranks:
                text = f"`{fault.word}` needs ranks that the harness starts: set `launcher: local`"
                yield ("runs", number, "faults", n), text
        yield from _restarted(scenario, number)


def _time_limits(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """SLURM restarts a job at its time limit, and for no other reason."""
    slurm = scenario.launcher.kind == "slurm"
    for number, run in enumerate(scenario.runs):
        found = any(fault.asks_to_end == "SIGUSR1" for fault in run.faults)
        again = scenario.launcher.first_run(number + 1) != number + 1
        if slurm and again and not found and number + 1 < len(scenario.runs):
            yield ("runs", number), "slurm restarts only a run that met its `time_limit`"


def _restarted(scenario: Scenario, number: int) -> Iterator[tuple[Place, str]]:
    """Yields settings that a run restarted in place cannot change."""
    first = scenario.launcher.first_run(number)
    run, before = scenario.runs[number], scenario.runs[first]
    if first == number:
        return
    restarted = f"run {number} is run {first}, restarted by {scenario.launcher.kind}"
    if run.before:
        yield ("runs", number, "before"), f"{restarted}: nothing can happen between the two"
    for key in _OWN_SETTINGS:
        if getattr(run, key) != getattr(before, key):
            yield ("runs", number, key), f"{restarted}: it cannot change {key}"
