"""Combines scenarios and results: the state of each cell of the matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.matrix.cell import Item, MatrixCell
from harness.matrix.results import Name, Result

STATES = ("passed", "skipped", "failing", "not run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The number of tests of each cell in each state, and the reasons for skips and failures.

    `unknown` counts results of tests that no scenario makes any more.
    """

    cells: Mapping[MatrixCell, Counter[str]]
    skipped: Counter[str]
    failing: tuple[str, ...]
    unknown: int
    days: tuple[str, ...]


def bring_together(items: Sequence[Item], results: Mapping[tuple[Name, str], Result]) -> Matrix:
    """Counts. An item without a result was not run, even if it is left out by default."""
    cells: dict[MatrixCell, Counter[str]] = {}
    skipped: Counter[str] = Counter()
    failing: list[str] = []
    used = set()
    for item in items:
        for cell in item.cells:
            result = results.get((item.name, cell.device))
            state = "not run" if result is None else result.state
            cells.setdefault(cell, Counter())[state] += 1
            if result is None:
                continue
            used.add((item.name, cell.device))
            if state == "skipped":
                skipped[result.why] += 1
            elif state == "failing":
                failing.append(f"{item.file}::{item.label} on {cell.device}: {result.why}")
    return Matrix(
        cells=cells,
        skipped=skipped,
        failing=tuple(failing),
        unknown=len(results.keys() - used),
        days=tuple(sorted({result.day for result in results.values() if result.day})),
    )
