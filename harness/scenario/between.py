"""Refuses impossible events between two runs of a well-formed scenario."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.faults.actions import Displace, Foreign, PutBack, Relocate, SetLatest
from harness.layouts.registry import is_owned
from harness.part import Place
from harness.scenario.schema import Scenario

_TAKEN = re.compile(r"checkpoints|reference|executed|plan\.json|run\d+")
"""Names that a run directory already contains."""


def find_impossible_between(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """Yields every action that cannot be done."""
    yield from _displaced(scenario)
    relocated = 0
    last = max(run.until_step for run in scenario.runs)
    for number, run in enumerate(scenario.runs):
        place: Place = ("runs", number, "before")
        if run.before and not number:
            yield place, "the directory is empty before the first run: there is nothing to act on"
        for n, action in enumerate(run.before):
            if isinstance(action, Displace | PutBack):
                yield (*place, n), f"`{action.word}` needs a running job: use the fault `operator`"
            elif isinstance(action, Relocate):
                relocated += 1
                if relocated > 1:
                    yield (*place, n), "the directory can be relocated only once in a scenario"
                if _TAKEN.fullmatch(name := action.relocate.to):
                    yield (*place, n, "relocate", "to"), f"{name} is taken; choose another name"
            elif isinstance(action, Foreign) and is_owned(action.foreign.path):
                text = f"{action.foreign.path} is a checkpointer's own name; choose another name"
                yield (*place, n, "foreign", "path"), text
            elif isinstance(action, SetLatest) and (action.latest.step or 0) > last:
                text = f"step {action.latest.step} is never saved: the runs end at step {last}"
                yield (*place, n, "latest", "step"), text


def _displaced(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """Yields a directory that is displaced twice, or still is when the next run begins."""
    for number, run in enumerate(scenario.runs):
        away = False
        for n, fault in enumerate(run.faults):
            place: Place = ("runs", number, "faults", n)
            action = fault.action
            if action is None:
                continue
            if isinstance(action, Displace | PutBack):
                if away is isinstance(action, Displace):
                    text = "is already displaced" if away else "was not displaced before"
                    yield place, f"the directory {text}"
                away = isinstance(action, Displace)
            elif away:
                yield place, "the directory is displaced: there is nothing to act on"
        if away and number + 1 < len(scenario.runs):
            yield (
                ("runs", number),
                "the directory is still displaced when the next run begins: add `put_back`",
            )
        if scenario.filesystem is not None and any(
            isinstance(fault.action, Displace) for fault in run.faults
        ):
            yield ("filesystem",), "the directory is mounted: it cannot be displaced"
