"""Refuses what a scenario of a command cannot say, and what only such a scenario can."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.faults.actions import Relocate
from harness.faults.base import expression
from harness.part import Place
from harness.scenario.schema import Run, Scenario

Finding = tuple[Place, str]

_OF_A_COMMAND = ("layout", "result", "step_line")
_OF_ALL = ("name", "job", *_OF_A_COMMAND, "seed", "runs", "expect", "explore")
_OF_ITS_RUNS = ("command", "nproc", "before", "faults")


def find_impossible_command(scenario: Scenario) -> Iterator[Finding]:
    """Yields settings of the built-in job beside a command, and settings of a command without."""
    if scenario.job is None:
        yield from _without_command(scenario)
        return
    for key in scenario.model_fields_set - {*_OF_ALL}:
        text = f"belongs to the built-in job: a command decides its `{key}` itself"
        yield (key,), f"{text}; leave it out"
    if scenario.job.probe and scenario.layout is None:
        text = "a probe says which steps are saved: `layout` must say where"
        yield ("job", "probe"), text
    for number, run in enumerate(scenario.runs):
        yield from _run(number, run, probed=scenario.job.probe)
    if scenario.explore is not None and scenario.explore.phases:
        yield ("explore", "phases"), "the saves of a command are not known: leave `phases` out"
    if scenario.expect.resumed_from_step is not None and not scenario.job.probe:
        text = "what a command without a probe resumed from is not known: use `first_step`"
        yield ("expect", "resumed_from_step"), text
    if scenario.step_line is not None:
        yield from _expression(scenario.step_line)


def _without_command(scenario: Scenario) -> Iterator[Finding]:
    for key in _OF_A_COMMAND:
        if key in scenario.model_fields_set:
            yield (key,), "needs `job`, the command that it is about"
    for number, run in enumerate(scenario.runs):
        for key in ("command", "nproc"):
            if getattr(run, key) is not None:
                yield ("runs", number, key), "needs `job`, the command of the other runs"
        if not run.until_step:
            yield ("runs", number, "until_step"), "is missing; expected a whole number"


def _run(number: int, run: Run, *, probed: bool) -> Iterator[Finding]:
    place: Place = ("runs", number)
    for key in run.model_fields_set - {*_OF_ITS_RUNS}:
        yield (*place, key), "belongs to the built-in job: a command decides it itself"
    for n, action in enumerate(run.before):
        if isinstance(action, Relocate):
            text = "a command is always started with the same directory: it cannot be relocated"
            yield (*place, "before", n), text
    for n, fault in enumerate(run.faults):
        at, inside = fault.at, (*place, "faults", n, "at")
        if probed and at.step is not None:
            continue
        if not at.is_operation or at.save is not None or at.phase is not None:
            text = "a command has only operations: give `operation` or `path`, and `nth`"
            yield inside, f"{text}; or `step`, with a probe"
        if fault.second_host or fault.needs_nodes:
            yield (*place, "faults", n), f"`{fault.word}` needs the built-in job"


def _expression(text: str) -> Iterator[Finding]:
    try:
        groups = re.compile(expression(text)).groups
    except ValueError as error:
        yield ("step_line",), str(error)
    else:
        if not groups:
            yield ("step_line",), f"{text!r} needs a group around the number: (\\d+)"
