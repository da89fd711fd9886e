"""One cell of the matrix: where a scenario runs, and the tests there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file
from harness.scenario.schema import Scenario
from harness.search.explore.job import count_parts


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class MatrixCell:
    """Where a scenario runs. `layout` is its world as people read it, or several in turn."""

    launcher: str
    device: str
    layout: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A test that `pytest scenarios/` makes from a scenario, by its JUnit names.

    It can run in several cells, one for each device.
    """

    file: str
    label: str
    cells: tuple[MatrixCell, ...]

    @property
    def name(self) -> tuple[str, str]:
        """Returns `classname` and `name` of the test case."""
        return self.file.replace("/", "."), self.label


def find_items(root: Path) -> tuple[Item, ...]:
    """Returns every test of the scenarios below `root/scenarios`. Raises ScenarioError."""
    files = sorted((root / "scenarios").rglob("*.y*ml"))
    return tuple(item for path in files for item in _items(path, path.relative_to(root).as_posix()))


def _items(path: Path, shown: str) -> Iterator[Item]:
    for label, one in read_file(path, shown=shown, gpus=0).items():
        if isinstance(one, ScenarioError):
            raise one
        scenario = one.scenario
        cells = tuple(_cells(scenario, shown))
        if scenario.explore is None:
            yield Item(file=shown, label=label or "scenario", cells=cells)
            continue
        parts = count_parts(scenario.explore.budget)
        for number in range(1, parts + 1):
            words = [label] * bool(label) + [f"explore-{number}of{parts}"]
            yield Item(file=shown, label="-".join(words), cells=cells)


def _cells(scenario: Scenario, shown: str) -> Iterator[MatrixCell]:
    devices = ("cpu", "cuda") if scenario.device == "auto" else (scenario.device,)
    plan = make_plan(scenario, source=shown, implementation=Implementation())
    for device in devices:
        yield cell_of(plan, device)


def cell_of(plan: Plan, device: str) -> MatrixCell:
    """Returns the cell of a plan on a device."""
    mode = "no saves" if plan.checkpoint is None else str(plan.checkpoint.async_mode)
    worlds = [str(plan.workload_of(number).world) for number in range(len(plan.runs))]
    layout = " -> ".join(world for world, _ in itertools.groupby(worlds))
    return MatrixCell(launcher=plan.launcher.kind, device=device, layout=layout, mode=mode)
