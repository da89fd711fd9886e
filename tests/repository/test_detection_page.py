"""`docs/detection.md` tells of bugs, scenarios and properties that exist."""

from __future__ import annotations

import re
from pathlib import Path

from harness.judge.properties import PROMISES
from harness.mutants.catalogue import name_of
from harness.mutants.given import default_scenarios
from harness.mutants.markdown import BEGIN, END
from tests.mutants.catalogue import BUGS, REFUSALS
from tests.mutants.entry import ENDS_IN_ORDER

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
TABLES = TEXT.partition(BEGIN)[2].partition(END)[0]
ROWS = re.findall(
    r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \| (\w+) \| `(\w+)`(.*)$", TABLES, re.MULTILINE
)
SCENARIOS = {one.name for one in default_scenarios(ROOT / "scenarios", gpus=0)}


def test_the_table_has_the_bugs_that_were_promised() -> None:
    names = {name_of(bug.implementation) for bug in BUGS.bugs}
    told = [row[0] for row in ROWS]
    assert set(told) <= names
    assert len(told) == len(set(told)) >= 60


def test_every_bug_of_the_table_was_caught_by_what_names_it() -> None:
    assert [row[0] for row in ROWS if "missed" in row[4]] == []
    assert {row[3] for row in ROWS} <= {*PROMISES, *REFUSALS, ENDS_IN_ORDER}
    assert {row[3] for row in ROWS} >= set(PROMISES)


def test_a_scenario_that_is_named_exists() -> None:
    named = set(re.findall(r"`([a-z_]+/[\w.-]+\.yaml(?:::[\w.+-]+)?)`", TABLES))
    assert named - SCENARIOS == set()


def test_nobody_correct_is_accused_and_nothing_is_left_open() -> None:
    assert re.search(r"controls in \d+ cells: 0 accused", TABLES)
    assert "Problems:" not in TABLES
    assert "nobody says" not in TABLES


def test_a_reason_to_stay_is_given_for_scenarios_that_exist() -> None:
    for pattern in BUGS.quiet:
        assert any(BUGS.why_quiet(name) == BUGS.quiet[pattern] for name in SCENARIOS), pattern
