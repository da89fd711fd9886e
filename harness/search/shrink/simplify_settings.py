"""Proposes scenarios with more settings at their defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.part import Part
from harness.scenario.schema import (
    Accumulation,
    Checkpoint,
    Data,
    Freeze,
    FreezePlan,
    Model,
    Scenario,
    Scheduler,
)
from harness.search.shrink.change import inside


def simpler_mode(scenario: Scenario) -> Iterator[Scenario]:
    """Yields synchronous instead of background saves."""
    for mode in ("disabled", "async"):
        yield inside(scenario, "checkpoint", async_mode=mode)


def less_frozen(scenario: Scenario) -> Iterator[Scenario]:
    """Yields no freezing at all, without its network; then a schedule without one of its stages."""
    freeze = scenario.freeze
    if freeze != FreezePlan():
        yield scenario.model_copy(update={"freeze": FreezePlan(), "model": Model()})
        yield scenario.model_copy(update={"freeze": FreezePlan()})
        yield inside(scenario, "freeze", base=())
    for place in range(len(freeze.schedule)):
        stages = (*freeze.schedule[:place], *freeze.schedule[place + 1 :])
        yield inside(scenario, "freeze", schedule=stages)
    if freeze.base:
        for module in ("transformer", "vision_encoder"):
            yield inside(scenario, "freeze", base=(Freeze.model_validate({"module": module}),))


_USUAL: tuple[tuple[str, Part], ...] = (
    ("model", Model()),
    ("data", Data()),
    ("scheduler", Scheduler()),
    ("accumulate", Accumulation()),
    ("checkpoint", Checkpoint()),
)
_USUAL_VALUES: dict[str, Any] = {
    "seed": 0, "optimizer": "adamw", "learning_rate": 3e-3, "ema": False, "evaluation": None
}  # fmt: skip


def usual_job(scenario: Scenario) -> Iterator[Scenario]:
    """Sets everything to its default, except for the freezing and the steps between saves.

    Most failures have nothing to do with most settings: one run here saves a dozen later.
    """
    interval = scenario.checkpoint.interval
    usual = {key: part for key, part in _USUAL if key != "checkpoint"} | _USUAL_VALUES
    if scenario.freeze != FreezePlan():
        usual["model"] = Model(preset=scenario.model.preset)
    plain = scenario.model_copy(update=usual)
    yield plain.model_copy(update={"checkpoint": Checkpoint(interval=interval)})
    yield plain


def usual_settings(scenario: Scenario) -> Iterator[Scenario]:
    """Sets whole parts to their defaults, then one setting after the other."""
    for key, usual in _USUAL:
        if getattr(scenario, key) != usual:
            yield scenario.model_copy(update={key: usual})
    for value in _USUAL_VALUES.items():
        yield scenario.model_copy(update=dict([value]))
    for key, usual in _USUAL:
        for name, value in usual:
            if name != "interval" and getattr(getattr(scenario, key), name) != value:
                yield inside(scenario, key, **{name: value})
    for key, usual in _USUAL:
        for name, value in usual:
            now = getattr(getattr(scenario, key), name)
            numbers = type(value) is int and type(now) is int  # True would be one to isinstance
            if name != "interval" and numbers:
                for nearer in _between(now, value):
                    yield inside(scenario, key, **{name: nearer})


def _between(number: int, usual: int) -> Iterator[int]:
    """Yields numbers on the way to the usual one, the boldest first."""
    step = 1 if usual > number else -1
    for nearer in dict.fromkeys((usual - step, (number + usual) // 2, number + step)):
        if nearer not in (number, usual):
            yield nearer
