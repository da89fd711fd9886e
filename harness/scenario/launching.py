"""Refuses impossible uses of a launcher in a well-formed scenario."""

from __future__ import annotations

from collections.abc import Iterator

from harness.part import Place
from harness.scenario.schema import Scenario

_OWN_SETTINGS = ("until_step", "load_step", "world", "freeze", "ignore_freeze_mismatch")
"""Settings that a job is started with, and has again when it is restarted in place."""


def find_impossible_launch(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """Every combination of a launcher with something else that does not exist."""
    launcher, place = scenario.launcher, ("launcher",)
    yield from _time_limits(scenario)
    if launcher.is_local:
        if launcher.restarts:
            yield (*place, "restarts"), "the local launcher starts no rank again: use torchrun"
        return
    if scenario.explore is not None:
        yield place, "an exploration starts its jobs by the hundred: leave `launcher` out"
    if launcher.restarts >= len(scenario.runs):
        text = f"{launcher.restarts} restarts are as many runs more"
        yield (*place, "restarts"), f"{text}: `runs` has {len(scenario.runs)}"
    if launcher.kind == "slurm" and scenario.world.nodes > 1:
        yield place, "slurm has one node here: use torchrun, or leave `world.nodes` out"
    for number, run in enumerate(scenario.runs):
        for n, fault in enumerate(run.faults):
            if fault.needs_own_ranks:
                text = f"`{fault.word}` is for ranks that the harness starts: launcher: local"
                yield ("runs", number, "faults", n), text
        yield from _restarted(scenario, number)


def _time_limits(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """SLURM starts a job again for its time limit, and for nothing else."""
    slurm = scenario.launcher.kind == "slurm"
    for number, run in enumerate(scenario.runs):
        found = any(fault.asks_to_end == "SIGUSR1" for fault in run.faults)
        again = scenario.launcher.first_run(number + 1) != number + 1
        if slurm and again and not found and number + 1 < len(scenario.runs):
            yield ("runs", number), "slurm starts a run again that met its `time_limit`, no other"


def _restarted(scenario: Scenario, number: int) -> Iterator[tuple[Place, str]]:
    """Settings that a run restarted in place cannot change."""
    first = scenario.launcher.first_run(number)
    run, before = scenario.runs[number], scenario.runs[first]
    if first == number:
        return
    described = f"run {number} is run {first}, started again by {scenario.launcher.kind}"
    if run.before:
        yield ("runs", number, "before"), f"{described}: nothing happens between the two"
    for key in _OWN_SETTINGS:
        if getattr(run, key) != getattr(before, key):
            yield ("runs", number, key), f"{described}: its {key} is the same"
