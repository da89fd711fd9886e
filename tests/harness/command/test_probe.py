"""The probe: silent in ordinary runs, and read back as records of a rank otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import probe
from harness.evidence.read import read_event_logs
from harness.evidence.record import Resumed, SaveBegan, SaveReturned, Stepped
from harness.jobs.command.program import RANK_VARIABLES


def test_it_does_nothing_unless_the_harness_runs_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(probe.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    probe.resumed(None)
    probe.step(1, loss=0.5)
    probe.saved(1)
    assert list(tmp_path.iterdir()) == []


def test_its_records_are_those_of_a_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(probe.VARIABLE, str(tmp_path))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(probe, "_saves", [])
    monkeypatch.setattr(probe, "_descriptors", {})
    probe.resumed(2, state={"weight": 1.5})
    probe.step(3, loss=0.5, samples=[4, 5], state={"weight": 2.5})
    probe.saved(3)
    none, (first, second, began, returned) = read_event_logs(tmp_path, 2)
    assert none == ()
    assert isinstance(first, Resumed)
    assert isinstance(second, Stepped)
    assert (first.step, second.step, second.samples, second.loss) == (2, 3, (4, 5), (0.5).hex())
    assert first.state.params["weight"] != second.state.params["weight"]
    assert isinstance(began, SaveBegan)
    assert isinstance(returned, SaveReturned)
    assert (returned.step, returned.ordinal) == (3, 1)


def test_it_finds_the_rank_where_the_supervisor_does() -> None:
    assert probe._RANKS == RANK_VARIABLES
