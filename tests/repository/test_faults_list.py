"""What `docs/faults.md` names exists, and every fault of the language has its row."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from harness.scenario.words import FAULTS
from tests.planted.catalogue import PLANTED, UNSYNCED

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
BUGS = sorted(set(re.findall(r"`([a-z_]+:[A-Z]\w+)`", TEXT)))


def test_every_fault_has_a_row() -> None:
    first_words = re.findall(r"^\| `(\w+): ", TEXT, re.MULTILINE)
    assert set(FAULTS) <= set(first_words)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"scenarios/[\w./-]+", TEXT))))
def test_a_scenario_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_that_is_named_exists(bug: str) -> None:
    module, _, name = bug.partition(":")
    assert hasattr(importlib.import_module(f"tests.planted.{module}"), name)


def test_a_planted_bug_stands_beside_a_scenario_that_shows_it() -> None:
    bugs = [(one.manager, one.scenario) for one in PLANTED]
    bugs += [(one.manager, one.scenario) for one in UNSYNCED]
    shown = {(bug, f"scenarios/{scenario.partition('::')[0]}") for bug, scenario in bugs}
    rows = re.findall(r"^\| [^|]+ \| `(scenarios/[^`]+)` \| `([a-z_]+:\w+)`", TEXT, re.MULTILINE)
    explored = ("recovery:ChokesOnAnEmptyDescription", "scenarios/explore/killed-anywhere.yaml")
    assert len(rows) > 10
    assert {(bug, scenario) for scenario, bug in rows} - shown == {explored}
