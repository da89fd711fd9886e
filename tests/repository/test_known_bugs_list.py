"""What `docs/known-bugs.md` names as shown exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "known-bugs.md").read_text(encoding="utf-8")


def in_code(pattern: str) -> list[str]:
    return sorted(set(re.findall(rf"`({pattern})`", TEXT)))


def test_there_is_something_to_look_for() -> None:
    assert len(in_code(r"test_\w+")) > 30


@pytest.mark.parametrize("name", in_code(r"test_\w+"))
def test_a_test_that_is_named_exists(name: str) -> None:
    files = (ROOT / "tests").rglob("test_*.py")
    assert any(f"def {name}(" in file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("name", in_code(r"(?:tests/\w+/)?test_\w+\.py"))
def test_a_file_of_tests_that_is_named_exists(name: str) -> None:
    assert list((ROOT / "tests").rglob(Path(name).name))


@pytest.mark.parametrize("name", in_code(r"scenarios/[^`]+"))
def test_a_scenario_that_is_named_exists(name: str) -> None:
    assert list(ROOT.glob(name))
