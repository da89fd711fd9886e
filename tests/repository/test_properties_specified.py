"""Each property's module is its specification: sentence, evidence, unknown, what is not covered."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from harness.judge.properties import PROMISES
from harness.words import EvidenceKind

ROOT = Path(__file__).resolve().parents[2]


def specification(name: str) -> str:
    module = importlib.import_module(f"harness.judge.properties.{name}")
    return " ".join(str(inspect.getdoc(module)).split())


@pytest.mark.parametrize("name", PROMISES)
@pytest.mark.parametrize(
    "part", ["The promise: ", "Evidence: ", "unknown", "Not covered: "], ids=str.strip
)
def test_the_docstring_of_a_property_has_each_part(name: str, part: str) -> None:
    assert specification(name).startswith(f"`{name}`: ")
    assert part.lower() in specification(name).lower()


@pytest.mark.parametrize("name", PROMISES)
def test_a_property_that_answers_unknown_says_when_and_one_that_never_does_says_so(
    name: str,
) -> None:
    source = (ROOT / "harness" / "judge" / "properties" / f"{name}.py").read_text(encoding="utf-8")
    answers = "PROMISE.unknown(" in source
    assert ("Never unknown" in specification(name)) is not answers


@pytest.mark.parametrize("name", PROMISES)
def test_every_property_stands_in_the_document_with_what_it_does_not_cover(name: str) -> None:
    document = (ROOT / "docs" / "properties.md").read_text(encoding="utf-8")
    (row,) = [line for line in document.splitlines() if line.startswith(f"| `{name}` |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 5
    assert cells[4]
    promise = PROMISES[name]
    assert cells[1] == promise.sentence
    used = f"({', '.join(f'`{one}`' for one in promise.uses)})" if promise.uses else ""
    needed = ", ".join(f"`{one}`" for one in promise.needs)
    assert cells[2] == f"{needed} {used}".strip()


@pytest.mark.parametrize("kind", EvidenceKind)
def test_every_kind_of_evidence_stands_in_the_document_and_is_used(kind: EvidenceKind) -> None:
    document = (ROOT / "docs" / "properties.md").read_text(encoding="utf-8")
    assert f"\n| `{kind}` | " in document
    assert any(kind in (*one.needs, *one.uses) for one in PROMISES.values())
