"""Two versions of an implementation with the same scenarios, and what only one of them breaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.compare import VersionComparison, Versions, compare, describe, versions_of
from harness.mutants.cell import MutantCell
from harness.plan.model import Implementation
from harness.promises import parse_promises
from harness.run.inspecting import ImplementationError
from tests.harness.proving import ROOT

BEFORE, AFTER = (Implementation(path=f"/{name}") for name in ("before", "after"))
VERSIONS = Versions(first=BEFORE, second=AFTER, names=("before", "after"))


def _cell(scenario: str, outcome: str = "PASS", *broken: str) -> MutantCell:
    return MutantCell(
        manager=BEFORE.name, scenario=scenario, outcome=outcome, broken=broken, details="because"
    )


def _comparison(*pairs: tuple[MutantCell, MutantCell]) -> VersionComparison:
    return VersionComparison(
        versions=VERSIONS, pairs={one.scenario: (one, two) for one, two in pairs}
    )


def test_each_property_that_only_one_breaks_is_listed_with_one_replay() -> None:
    found = _comparison(
        (_cell("a.yaml::x", "LOST_WORK", "nothing_lost"), _cell("a.yaml::x")),
        (_cell("b.yaml", "HARD_FAIL", "nothing_lost", "clean"), _cell("b.yaml", "LEAK", "clean")),
        (_cell("c.yaml"), _cell("c.yaml")),
    )
    text = describe(found)
    assert text.count("replay:") == 1
    assert "nothing_lost: 2 scenarios" in text
    assert "scenarios/a.yaml::x" in text
    assert "--implementation-path /before" in text
    assert "only after breaks: nothing" in text
    assert (
        "3 scenarios with before and after: 1 green with both, 1 break something with both" in text
    )
    assert not found.is_worse


def test_a_version_that_breaks_more_is_worse() -> None:
    assert _comparison((_cell("a.yaml"), _cell("a.yaml", "LEAK", "clean"))).is_worse


def test_a_result_that_proves_nothing_is_not_green() -> None:
    found = _comparison(
        (_cell("a.yaml"), _cell("a.yaml", "INVALID")),
        (_cell("b.yaml", "INVALID"), _cell("b.yaml", "INVALID")),
    )
    assert found.is_worse
    text = describe(found)
    assert "only after breaks:\n  INVALID: 1 scenario\n" in text
    assert "2 scenarios with before and after: 0 green with both, 1 break" in text


def test_what_cannot_be_asked_of_both_is_left_out_with_its_reason() -> None:
    less = [
        one.model_copy(update={"promises": parse_promises("documented")}) for one in (BEFORE, AFTER)
    ]
    versions = Versions(first=less[0], second=less[1], names=("before", "after"))
    found = compare(versions, ROOT, patterns=["two_jobs/*"], workers=1)
    assert found.pairs == {}
    assert found.left_out
    assert "left out: two_jobs/" in describe(found)
    assert "not promised by" in describe(found)


def test_both_are_judged_by_what_both_promise() -> None:
    says = {"a:Manager": "documented,errors,prompt", "b:Manager": "all,-errors"}

    def build(one: Implementation) -> Implementation:
        return one.model_copy(update={"promises": parse_promises(says[one.name])})

    versions = versions_of("a:Manager", "b:Manager", Implementation(), build=build)
    assert (
        versions.first.promises == versions.second.promises == parse_promises("documented,prompt")
    )


def test_what_is_neither_a_folder_nor_a_name_is_refused() -> None:
    with pytest.raises(ImplementationError, match="old is no folder, and no MODULE:NAME"):
        versions_of("old", "a:Manager", Implementation(), build=lambda one: one)


WITHOUT_A_WINDOW = """
import sys
sys.path.append({root!r})
from dataclasses import dataclass
from tests.harness.simple_manager import ShutdownHandler, SimpleManager, resolve_resume_path

@dataclass
class CheckpointConfig:
    dir: str
    interval: int
    keep_last_n: int
    async_mode: object = "disabled"

    def should_save(self, step):
        return step > 0 and step % self.interval == 0

    def is_dynamic_milestone(self, step):
        return False
"""
WITH_A_WINDOW = """
import sys
sys.path.append({root!r})
from tests.harness.simple_manager import ShutdownHandler, resolve_resume_path
from tests.mutants.publishing import WritesInPlace as SimpleManager
"""


def test_a_version_that_lacks_a_field_and_one_with_a_bug_differ_by_what_each_breaks(
    tmp_path: Path,
) -> None:
    for name, text in (("before", WITHOUT_A_WINDOW), ("after", WITH_A_WINDOW)):
        (tmp_path / name).mkdir()
        code = text.format(root=str(ROOT))
        (tmp_path / name / "mine.py").write_text(code, encoding="utf-8")
    before, after = str(tmp_path / "before"), str(tmp_path / "after")
    words = [before, after, "--promises", "all", "--implementation", "mine:SimpleManager"]
    patterns = ["sync/killed-in-flush-all-ranks.yaml", "baseline/milestones.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", "compare", *words, "--only", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    only_before, _, only_after = done.stdout.partition(f"only {after} breaks:")
    assert "baseline/milestones.yaml" in only_before
    assert "killed-in-flush" not in only_before
    assert "whole_or_absent: " in only_after
    assert f"--implementation mine:SimpleManager --implementation-path {after}" in only_after
