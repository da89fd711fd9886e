"""Formats the matrix as a page for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from harness.matrix.cell import MatrixCell
from harness.matrix.matrix import STATES, Matrix

_INTRODUCTION = (
    "How many tests of `pytest scenarios/` run where, and with which results. A scenario that",
    "leaves its device open counts on each. Tests marked `long` run only on request. Made from the",
    "scenarios and from the results of test runs by",
    "",
)


def page(matrix: Matrix, command: str) -> str:
    """Returns the whole page; `command` is the command that made it."""
    return "\n".join(_lines(matrix, command)) + "\n"


def _lines(matrix: Matrix, command: str) -> Iterator[str]:
    yield "# Layouts, modes, devices, launchers"
    yield ""
    yield from _INTRODUCTION
    yield f"    {command}"
    yield ""
    days = " and ".join(dict.fromkeys((matrix.days[0], matrix.days[-1]))) if matrix.days else "-"
    yield f"The runs began on {days}. {_describe(_sum(matrix.cells.values()))} in all."
    if matrix.unknown:
        yield f"{matrix.unknown} results belong to tests of no scenario; they are left out."
    for launcher, device in sorted({(cell.launcher, cell.device) for cell in matrix.cells}):
        yield from _table(matrix, launcher, device)
    yield from _list("Skipped", (f"{n} times: {why}" for why, n in matrix.skipped.most_common()))
    yield from _list("Failing", matrix.failing)


def _table(matrix: Matrix, launcher: str, device: str) -> Iterator[str]:
    here = {
        cell: found
        for cell, found in matrix.cells.items()
        if (cell.launcher, cell.device) == (launcher, device)
    }
    modes = sorted({cell.mode for cell in here}, key=lambda mode: (mode != "disabled", mode))
    yield ""
    yield f"## Launcher {launcher}, device {device}"
    yield ""
    yield f"| layout | {' | '.join(modes)} |"
    yield f"|---|{'---|' * len(modes)}"
    for layout in sorted({cell.layout for cell in here}):
        row = [
            MatrixCell(launcher=launcher, device=device, layout=layout, mode=mode) for mode in modes
        ]
        yield f"| {layout} | {' | '.join(_describe(here.get(cell, Counter())) for cell in row)} |"


def _describe(found: Counter[str]) -> str:
    return ", ".join(f"{found[state]} {state}" for state in STATES if found[state]) or "-"


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counters:
        total.update(one)
    return total


def _list(title: str, entries: Iterable[str]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    found = [f"- {entry}" for entry in entries]
    yield from found or ["Nothing."]
