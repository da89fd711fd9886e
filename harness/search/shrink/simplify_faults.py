"""Proposes scenarios with simpler faults: earlier points, fewer words, smaller numbers."""

from __future__ import annotations

from collections.abc import Iterator

from harness.faults.registry import AnyFault
from harness.scenario.schema import Scenario
from harness.search.shrink.change import faults_of, inside, with_fault

_POINT = {
    "path": None,
    "operation": None,
    "phase": None,
    "rank": None,
    "when": "before",
    "once_published": False,
    "nth": 1,
    "save": 1,
}


def simpler_faults(scenario: Scenario) -> Iterator[Scenario]:
    """Yields scenarios with one word of one fault less, or one number smaller."""
    for number, place, fault in faults_of(scenario):
        for simpler in _simpler(fault):
            yield with_fault(scenario, number, place, simpler)


def _simpler(fault: AnyFault) -> Iterator[AnyFault]:
    for values in fault.simpler_settings():
        simpler = inside(fault, fault.word, **values)
        yield simpler
        if "rank" in values:
            yield inside(simpler, "at", rank=None)
    yield from _simpler_point(fault)


def _simpler_point(fault: AnyFault) -> Iterator[AnyFault]:
    for name, value in _POINT.items():
        now = getattr(fault.at, name)
        if now != value and now is not None:
            yield inside(fault, "at", **{name: value})
    yield inside(fault, "at", path=None, nth=1)
    for name in ("nth", "save", "step", "rank"):
        now = getattr(fault.at, name)
        if isinstance(now, int):
            for lower in sorted({now // 2, now - 1}):
                if 0 <= lower < now:
                    yield inside(fault, "at", **{name: lower})
