"""The shared parts of `harness.crash` come to the same as rebuilding each state alone."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.crash_states import sample_states
from benchmarks.naive_states import rebuild
from harness.content import Content
from harness.disk.changes import FileLog, Version
from harness.disk.profiles import ProfileName
from harness.evidence.evidence import Evidence
from tests.harness.crash.histories import TREES, random_run
from tests.harness.judge.cases import Case, correct

BOTH: tuple[ProfileName, ...] = ("ordered", "posix")


def differences(evidence: Evidence, profile: ProfileName, wanted: int) -> list[object]:
    sample = sample_states(evidence, profile, wanted)
    assert len(sample) > wanted // 2
    return [
        (instant, lost)
        for instant, lost, tree in sample
        if rebuild(evidence, instant, lost) != tree
    ]


@pytest.mark.parametrize("profile", BOTH)
def test_over_two_runs_of_a_correct_job(profile: ProfileName) -> None:
    assert differences(correct().evidence(), profile, 400) == []


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("profile", BOTH)
def test_over_any_operations(profile: ProfileName, seed: int) -> None:
    evidence = Case(runs=[random_run(Random(seed))]).evidence()
    assert differences(evidence, profile, 150) == []


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("profile", BOTH)
def test_over_any_operations_on_directories(profile: ProfileName, seed: int) -> None:
    evidence = Case(runs=[random_run(Random(seed), kinds=TREES)]).evidence()
    assert differences(evidence, profile, 50) == []


def test_a_difference_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    content = FileLog.content

    def off_by_one(log: FileLog, version: Version) -> Content:
        torn = version.damage == "torn"
        return content(log, version._replace(at=version.at + 1) if torn else version)

    monkeypatch.setattr(FileLog, "content", off_by_one)
    evidence = Case(runs=[random_run(Random(0))]).evidence()
    assert differences(evidence, "posix", 150) != []
