"""The tables of `benchmarks.checkpoint`: what is measured, in which unit, against which budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

SAVE, COPY, PUBLISHED, LOST, LOAD = "sync", "stall", "published", "lost", "load"
MEMORY, GPU_MEMORY = "memory", "memory of the GPU"
_TITLES = {
    COPY: "async stall, in memory copies of the rank's bytes",
    SAVE: "sync save until durable, in DCP sync saves",
    PUBLISHED: "async save until published, in DCP THREAD saves",
    LOST: "training time lost to one async save, in DCP sync saves",
    LOAD: "load into a fresh model, in dcp.load",
    MEMORY: "memory at the first save, in the rank's bytes",
    GPU_MEMORY: "memory of the GPU at the first save and a load, in the rank's bytes",
}
# Section 9 of the design: by measure, then by size.
_BUDGETS = {
    COPY: {"50": 6.0, "500": 2.0, "1500": 2.0, "many": 40.0},
    SAVE: {"50": 0.6, "500": 0.7, "1500": 0.8, "many": 0.25},
    PUBLISHED: {"50": 0.6, "500": 0.95, "1500": 0.95, "many": 0.15},
    LOST: {"50": 0.6, "500": 0.8, "1500": 0.8, "many": 0.1},
    LOAD: {"50": 0.4},
}
_REFERENCE = {SAVE: "DCP sync", PUBLISHED: "DCP THREAD", LOST: "DCP sync", LOAD: "dcp.load"}

Times = dict[tuple[str, str], list[float]]
"""Seconds (memory: bytes) by measure and competitor."""


def _unit(measure_name: str, times: Times) -> float:
    if measure_name == COPY:
        return statistics.median(times["copy", "copy"])
    if measure_name in (MEMORY, GPU_MEMORY):
        return times["bytes", "rank"][0]
    source = SAVE if measure_name == LOST else measure_name
    return statistics.median(times[source, _REFERENCE[measure_name]])


def _cell(measure_name: str, name: str, size: str, times: Times, *, budgets: bool) -> str:
    values, unit = times[measure_name, name], _unit(measure_name, times)
    ratio = statistics.median(values) / unit
    shown = f"{ratio:.2f}"
    if measure_name == LOST and len(values) > 1:
        shown += f" +- {_error_of_median(values) / unit:.2f}"
    budget = _BUDGETS.get(measure_name, {}).get(size)
    if budget is None or not budgets or not name.startswith("kempnerforge"):
        return shown
    return f"{shown} (<= {budget:g}: {'met' if ratio <= budget else 'not met'})"


def _error_of_median(values: list[float]) -> float:
    """Returns the standard error of the median for normally distributed values."""
    return 1.25 * statistics.stdev(values) / math.sqrt(len(values))


def describe_times(found: dict[str, Times], *, budgets: bool) -> str:
    """Formats one table per measure, a row per competitor, a column per size; CPU budgets."""
    return "\n".join(_lines(found, budgets=budgets))


def _lines(found: dict[str, Times], *, budgets: bool) -> Iterator[str]:
    first = next(iter(found.values()))
    for measure_name, title in _TITLES.items():
        names = [name for kind, name in first if kind == measure_name]
        if not names:
            continue
        yield f"\n| {title} | {' | '.join(found)} |\n|---|{'---|' * len(found)}"
        for name in names:
            cells = [
                _cell(measure_name, name, size, times, budgets=budgets)
                if (measure_name, name) in times
                else "-"
                for size, times in found.items()
            ]
            yield f"| {name} | {' | '.join(cells)} |"
        if measure_name not in (MEMORY, GPU_MEMORY):
            units = [f"{1000 * _unit(measure_name, times):.1f} ms" for times in found.values()]
            yield f"| (1 is) | {' | '.join(units)} |"
