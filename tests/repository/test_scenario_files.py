"""The scenarios that ship with the repository are whole, and no two have the same name."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from harness.faults.actions import ACTIONS, Action
from harness.faults.operator import Operator
from harness.scenario.errors import ScenarioError
from harness.scenario.read import ScenarioFile, read_file
from harness.scenario.schema import Run

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted((ROOT / "scenarios").rglob("*.y*ml"))


def test_there_are_scenarios_for_the_whole_main_job() -> None:
    assert len(SCENARIOS) >= 20


def test_the_readme_lists_the_folders_of_scenarios() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `scenarios/` \| the scenarios: (.*) \|$", text, re.MULTILINE)
    assert sorted(row.split(", ")) == sorted(
        {path.relative_to(ROOT / "scenarios").parts[0] for path in SCENARIOS}
    )


def names(path: Path) -> list[str]:
    """The names of the scenarios of a file; an error in it is raised."""
    found = read_file(path, gpus=0).values()
    broken = [one for one in found if isinstance(one, ScenarioError)]
    if broken:
        raise broken[0]
    return [one.scenario.name for one in found if isinstance(one, ScenarioFile)]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_scenario_file_reads_without_any_gpu(path: Path) -> None:
    for name in names(path):
        assert re.match(r"[\w -]+: ", name), "a name begins with its area"


def test_every_action_between_runs_has_a_scenario() -> None:
    found = {
        action.word
        for path in SCENARIOS
        for one in read_file(path, gpus=0).values()
        if isinstance(one, ScenarioFile)
        for run in one.scenario.runs
        for action in (*run.before, *_by_operator(run))
    }
    assert found == set(ACTIONS)


def _by_operator(run: Run) -> list[Action]:
    return [one.operator for one in run.faults if isinstance(one, Operator)]


def test_no_two_scenarios_have_the_same_name() -> None:
    times = Counter(name for path in SCENARIOS for name in names(path))
    assert [name for name, number in times.items() if number > 1] == []
