"""The catalogue is whole: its names exist, and what it does not cover says why."""

from __future__ import annotations

import importlib
import re

import pytest

from harness.judge.properties import PROMISES
from harness.mutants.catalogue import name_of
from harness.mutants.given import default_scenarios
from kempnerforge.checkpoint.manager import CheckpointManager
from tests.harness.proving import ROOT
from tests.harness.simple_manager import SimpleManager
from tests.mutants.catalogue import BUGS, MUTANTS, REFUSALS
from tests.mutants.copies import Copies
from tests.mutants.entry import COPIES, ENDS_IN_ORDER, PACKAGE, SIMPLE, Mutant
from tests.mutants.sources import CATEGORIES

_LEAST = 60
_CLASSES = {PACKAGE: CheckpointManager, SIMPLE: SimpleManager, COPIES: Copies}
_SCENARIOS = {one.name for one in default_scenarios(ROOT / "scenarios", gpus=0)}


def test_there_are_as_many_mutants_as_were_promised() -> None:
    assert len({bug.implementation for bug in MUTANTS}) == len(MUTANTS) >= _LEAST


@pytest.mark.parametrize("bug", MUTANTS, ids=str)
def test_a_mutant_says_what_it_changes_and_what_names_it(bug: Mutant) -> None:
    module, _, name = bug.implementation.partition(":")
    manager = getattr(importlib.import_module(module), name)
    # This one is the simple manager as it is: beside one with checksums, that is the bug.
    is_as_it_is = str(bug) == "VerifiesNothing"
    assert issubclass(manager, SimpleManager if is_as_it_is else _CLASSES[bug.base])
    assert manager.__doc__
    assert bug.caught_by in {*PROMISES, *REFUSALS, ENDS_IN_ORDER}
    assert bug.scenario in _SCENARIOS


def test_every_category_of_the_collection_has_a_mutant() -> None:
    known = {one for categories in CATEGORIES.values() for one in categories}
    assert known - {one for bug in MUTANTS for one in bug.categories} == set()


def test_every_bug_of_the_collection_has_a_mutant_or_says_why_not() -> None:
    covered = {number for bug in MUTANTS for number in bug.source.split()}
    excused = {number for text in BUGS.missing for number in re.findall(r"[A-Z]\d\d", text)}
    assert CATEGORIES.keys() - covered - excused == set()
    assert excused & covered == set()
    assert excused <= CATEGORIES.keys()


def test_what_a_control_leaves_out_is_there() -> None:
    for correct in BUGS.correct:
        for pattern in correct.leaves_out:
            only = {pattern: correct.leaves_out[pattern]}
            one = type(correct)(implementation=correct.implementation, leaves_out=only)
            assert any(one.reason(name) for name in _SCENARIOS), pattern


def test_the_package_leaves_nothing_out() -> None:
    assert [one.leaves_out for one in BUGS.correct if one.implementation == PACKAGE] == [{}]


def test_the_page_has_a_row_for_each_mutant_or_lists_it_as_without_one() -> None:
    page = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    listed = page.partition("have no row yet:")[2].partition("\n\n")[0]
    assert {name_of(bug.implementation) for bug in BUGS.bugs} - rows == set(
        re.findall(r"`(\w+)`", listed)
    )
