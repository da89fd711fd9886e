"""Simpler scenarios whose faults say less: earlier points, fewer words, smaller numbers."""

from __future__ import annotations

from collections.abc import Iterator

from harness.faults.registry import AnyFault
from harness.part import Part
from harness.scenario.schema import Scenario
from harness.shrink.change import faults_of, inside, with_fault

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
_FAULT = {
    "journal": "lost",
    "grace_s": None,
    "until": None,
    "times": 1,
    "error": "EIO",
}
_HITS_ALL = ("kill", "sigterm", "stop", "exit")


def simpler_faults(scenario: Scenario) -> Iterator[Scenario]:
    """One word of one fault less, or one number smaller."""
    for number, place, fault in faults_of(scenario):
        for simpler in _simpler(fault):
            yield with_fault(scenario, number, place, simpler)


def _simpler(fault: AnyFault) -> Iterator[AnyFault]:
    kind = fault.word
    settings: Part = getattr(fault, kind)
    for name, value in _FAULT.items():
        is_error = name == "error" and kind != "fail"
        if not is_error and getattr(settings, name, value) != value:
            yield inside(fault, kind, **{name: value})
    rank = getattr(settings, "rank", None)
    if kind in _HITS_ALL and rank != "all":
        yield inside(fault, kind, rank="all")
        yield inside(inside(fault, kind, rank="all"), "at", rank=None)
    if isinstance(rank, int) and rank > 0:
        yield inside(fault, kind, rank=0)
        yield inside(inside(fault, kind, rank=0), "at", rank=None)
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
