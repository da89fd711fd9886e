"""The default scenarios by their names, as the table lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.plan.make import make_plan
from harness.plan.model import Implementation
from harness.run.support import missing_disk, missing_for
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file
from harness.scenario.schema import Scenario
from harness.search.explore.job import Explored


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A scenario that `pytest scenarios/` runs. `name` is `folder/file.yaml`, with `::label`."""

    name: str
    scenario: Scenario

    @property
    def folder(self) -> str:
        """Its area, which is the name of its folder."""
        return self.name.partition("/")[0]

    @property
    def file(self) -> str:
        """Its name without the label."""
        return self.name.partition("::")[0]


def default_scenarios(root: Path, *, gpus: int) -> tuple[Given, ...]:
    """Returns all scenarios of a manager that run here by default. Raises ScenarioError."""
    found = [
        one for path in sorted(root.rglob("*.yaml")) for one in _of_file(path, root, gpus=gpus)
    ]
    return tuple(one for one in found if _runs_here(one.scenario, gpus=gpus))


def lacking(given: Given) -> str | None:
    """Returns why pytest would skip a scenario on this machine, or None."""
    plan = make_plan(given.scenario, source=given.name, implementation=Implementation())
    filesystem = plan.filesystem
    if given.scenario.explore is not None:
        filesystem = Explored(scenario=given.scenario, shown=given.name).filesystem
    return missing_for(plan) or missing_disk(filesystem)


def _of_file(path: Path, root: Path, *, gpus: int) -> Iterator[Given]:
    for label, one in read_file(path, gpus=gpus).items():
        if isinstance(one, ScenarioError):
            raise one
        name = path.relative_to(root).as_posix()
        yield Given(name=f"{name}::{label}" if label else name, scenario=one.scenario)


def _runs_here(scenario: Scenario, *, gpus: int) -> bool:
    """Whether it has a manager to test, is not marked `long`, and needs no GPU that is missing."""
    explore = scenario.explore
    is_long = explore is not None and explore.budget is None
    return scenario.job is None and not is_long and (scenario.device != "cuda" or gpus > 0)
