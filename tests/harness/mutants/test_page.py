"""The table as a page, its file of results, and the catalogue's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.mutants.catalogue import CatalogueError, load_catalogue
from harness.mutants.cell import add_cells, read_cells
from harness.mutants.given import default_scenarios
from harness.mutants.markdown import BEGIN, END, page, write_page
from harness.mutants.table import make_table
from tests.harness.mutants.bugs import CATALOGUE, KILLED, NAMES, cell

ROOT = Path(__file__).resolve().parents[3]
CAUGHT = cell("wrong:Early", KILLED, "HARD_FAIL", "latest_durable")


def test_the_page_tells_each_bug_and_what_is_missing() -> None:
    text = page(make_table(CATALOGUE, {CAUGHT.key: CAUGHT}, NAMES), ["    the command"])
    assert text.startswith("    the command\n\n- 2 mutants: 1 caught, 1 by what names them.\n")
    row = f"| `Early` | A01 | `{KILLED}` | HARD_FAIL | `latest_durable` | - | latest_durable |"
    assert row in text
    assert "| `nothing_lost`, **missed** |" in text
    assert "- Late is not caught by nothing_lost" in text
    assert "| async | 1 | 1 (100%) | - | Early |" in text
    assert "| none of the collection | 1 | 0 (0%) | - | Late |" in text


def test_a_page_takes_the_place_of_the_old_one_between_the_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_page(path, "new\n")
    assert path.read_text(encoding="utf-8") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"


def test_a_page_is_a_document_of_its_own_where_there_is_none(tmp_path: Path) -> None:
    write_page(tmp_path / "page.md", "new\n")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == f"{BEGIN}\n\nnew\n\n{END}\n"


def test_results_are_added_to_and_the_last_of_a_cell_counts(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    assert read_cells(path) == {}
    add_cells(path, [cell("wrong:Early", KILLED, "PASS")])
    add_cells(path, [CAUGHT])
    assert read_cells(path) == {CAUGHT.key: CAUGHT}


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("tests.mutants.catalogue", "a catalogue is named `module:NAME`"),
        ("tests.mutants.nowhere:BUGS", "No module named"),
        ("tests.mutants.catalogue:NOTHING", "has no attribute"),
        ("tests.mutants.catalogue:MUTANTS", "is a tuple, not a Catalogue"),
    ],
)
def test_a_name_that_leads_to_no_catalogue_says_so(place: str, problem: str) -> None:
    with pytest.raises(CatalogueError, match=problem):
        load_catalogue(place, folder=ROOT)


def test_the_default_scenarios_are_those_of_a_manager_that_pytest_runs_without_a_gpu() -> None:
    names = {one.name for one in default_scenarios(ROOT / "scenarios", gpus=0)}
    assert "sync/killed-in-seal.yaml" in names
    assert "explore/killed-anywhere.yaml::async" in names
    assert not [one for one in names if one.startswith(("gpu/", "explore/long/", "command/"))]
