"""Refuses settings of a run that its loader or its schedule cannot take over."""

from __future__ import annotations

from collections.abc import Iterator

from harness.part import Place
from harness.scenario.layouts import as_in_run, find_impossible_layout
from harness.scenario.schema import Scenario

Finding = tuple[Place, str]


def find_impossible_schedule(scenario: Scenario) -> Iterator[Finding]:
    """Yields schedules that end too early, and those that cannot continue each other."""
    last = max(run.until_step for run in scenario.runs)
    first = scenario.scheduler
    places: list[tuple[Place, int]] = [(("scheduler",), 0)]
    places += [(("runs", number, "scheduler"), number) for number in range(len(scenario.runs))]
    for place, number in places:
        own = first if place == ("scheduler",) else scenario.runs[number].scheduler
        if own is None:
            continue
        if own.kind == "one_cycle" and own.total_steps is not None and own.total_steps < last:
            text = f"one_cycle has no step after its last, and the runs end at step {last}"
            yield (*place, "total_steps"), f"{text}; possible: {last} or more"
        if own.kind == "annealing" and own.built == "after_load":
            text = (
                "torch's CosineAnnealingLR continues in other bits when it is built at a later step"
            )
            yield (*place, "built"), f"{text}; possible: before_load"
        if (own.kind == "one_cycle") != (first.kind == "one_cycle"):
            text = "one_cycle keeps its settings in the parameter groups: all runs have it, or none"
            yield (*place, "kind"), text


def find_impossible_settings(scenario: Scenario, number: int) -> Iterator[Finding]:
    """Yields a way of reading in which no loader, or no epoch, can continue."""
    run, place = scenario.runs[number], ("runs", number, "data")
    if run.data is None:
        return
    if not scenario.data.redistributes:
        text = "no data loader can continue with another batch size or number of workers"
        yield place, f"{text}: set `data.redistributes`"
    if any(one.world is not None for one in scenario.runs):
        yield place, "ranks and batches cannot both change in a scenario: leave one of them out"
    if scenario.accumulate.in_a_step > 1:
        yield place, "a step of several batches could begin in one epoch and end in the next"
    changed = as_in_run(scenario, run)
    share = changed.data.samples // changed.world.degree
    if changed.data.batch_size > share:
        yield (
            (*place, "batch_size"),
            f"each rank has {share} samples in an epoch, less than a batch",
        )
    yield from ((place, text) for _, text in find_impossible_layout(changed))
