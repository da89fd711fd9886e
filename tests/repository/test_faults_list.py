"""What `docs/faults.md` names exists, and every fault of the language has its row."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from harness.faults.registry import FAULTS
from tests.mutants.by_fault import BY_FAULT
from tests.mutants.by_fault import WEAKER as WEAKER_BY_FAULT
from tests.mutants.catalogue import MUTANTS, UNSYNCED, WEAKER

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
def test_a_mutant_that_is_named_exists(bug: str) -> None:
    module, _, name = bug.partition(":")
    assert hasattr(importlib.import_module(f"tests.mutants.{module}"), name)


def test_a_mutant_stands_beside_a_scenario_that_shows_it() -> None:
    bugs = [(one.manager, one.scenario) for one in (*MUTANTS, *BY_FAULT)]
    bugs += [(one.manager, one.scenario) for one in UNSYNCED]
    shown = {(bug, f"scenarios/{scenario.partition('::')[0]}") for bug, scenario in bugs}
    rows = re.findall(r"^\| [^|]+ \| `(scenarios/[^`]+)` \| `([a-z_]+:\w+)`", TEXT, re.MULTILINE)
    explored = ("recovery:ChokesOnAnEmptyDescription", "scenarios/explore/killed-anywhere.yaml")
    assert len(rows) > 10
    assert {(bug, scenario) for scenario, bug in rows} - shown == {explored}


def test_a_star_stands_beside_the_bugs_that_were_tried_with_a_weaker_fault() -> None:
    starred = re.findall(r"`([a-z_]+:\w+)` \* \|$", TEXT, re.MULTILINE)
    tried = {manager for manager, _ in WEAKER} | {one.manager for one in WEAKER_BY_FAULT}
    assert len(starred) > 20
    assert set(starred) <= tried


def test_every_kind_of_fault_has_a_mutant() -> None:
    table = TEXT.partition("## Which mutant")[2]
    assert re.findall(r"^\| .+ \| - \|$", table, re.MULTILINE) == []
