"""Small changes of a scenario, from which the simplifications are built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from harness.faults.actions import Action
from harness.faults.registry import AnyFault
from harness.layouts.registry import renumber
from harness.part import Part
from harness.scenario.schema import FreezePlan, Run, Scenario

Steps = Callable[[int], int]


def with_run(scenario: Scenario, number: int, **values: Any) -> Scenario:
    """Changes settings of one run."""
    run = scenario.runs[number].model_copy(update=values)
    runs = (*scenario.runs[:number], run, *scenario.runs[number + 1 :])
    return scenario.model_copy(update={"runs": runs})


def with_fault(scenario: Scenario, number: int, place: int, fault: AnyFault) -> Scenario:
    """Replaces one fault by another."""
    faults = scenario.runs[number].faults
    return with_run(scenario, number, faults=(*faults[:place], fault, *faults[place + 1 :]))


P = TypeVar("P", bound=Part)


def inside(part: P, key: str, **values: Any) -> P:
    """Changes settings of what a part holds under a key."""
    inner: Part = getattr(part, key)
    return part.model_copy(update={key: inner.model_copy(update=values)})


def faults_of(scenario: Scenario) -> Iterator[tuple[int, int, AnyFault]]:
    """Yields every fault with its run and its position in it."""
    for number, run in enumerate(scenario.runs):
        for place, fault in enumerate(run.faults):
            yield number, place, fault


def map_steps(scenario: Scenario, steps: Steps) -> Scenario:
    """Maps every training step that the scenario names to another one, also in names of files."""
    window = scenario.checkpoint.dyn_ckpt_window
    changes: dict[str, Any] = {
        "runs": tuple(_map_run(run, steps) for run in scenario.runs),
        "freeze": _map_freeze(scenario.freeze, steps),
    }
    if window is not None:
        moved = window.model_copy(update={"start": steps(window.start), "stop": steps(window.stop)})
        settings = scenario.checkpoint.model_copy(update={"dyn_ckpt_window": moved})
        changes["checkpoint"] = settings
    return scenario.model_copy(update=changes)


def _map_run(run: Run, steps: Steps) -> Run:
    return run.model_copy(
        update={
            "until_step": steps(run.until_step),
            "load_step": None if run.load_step is None else steps(run.load_step),
            "before": tuple(_map_action(action, steps) for action in run.before),
            "faults": tuple(_map_fault(fault, steps) for fault in run.faults),
            "freeze": None if run.freeze is None else _map_freeze(run.freeze, steps),
        }
    )


def _map_freeze(freeze: FreezePlan, steps: Steps) -> FreezePlan:
    stages = tuple(
        stage.model_copy(update={"start_step": max(1, steps(stage.start_step))})
        for stage in freeze.schedule
    )
    return freeze.model_copy(update={"schedule": stages})


def _map_fault(fault: AnyFault, steps: Steps) -> AnyFault:
    at = fault.at
    values: dict[str, Any] = {}
    if at.step is not None:
        values["step"] = max(1, steps(at.step))
    if at.path is not None:
        values["path"] = renumber(at.path, steps)
    moved = fault.model_copy(update={"at": at.model_copy(update=values)})
    if fault.action is not None:
        return moved.model_copy(update={fault.word: _map_action(fault.action, steps)})
    kind = fault.word
    until = getattr(getattr(fault, kind), "until", None)
    if until is None or until.step is None:
        return moved
    healed = until.model_copy(update={"step": max(1, steps(until.step))})
    return inside(moved, kind, until=healed)


def _map_action(action: Action, steps: Steps) -> Action:
    word = action.word
    settings = getattr(action, word)
    values: dict[str, Any] = {}
    for name in ("path", "against"):
        if word != "foreign" and isinstance(text := getattr(settings, name, None), str):
            values[name] = renumber(text, steps)
    if isinstance(step := getattr(settings, "step", None), int):
        values["step"] = steps(step)
    return inside(action, word, **values)
