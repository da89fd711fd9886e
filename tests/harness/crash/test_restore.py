"""A crash state on the disk, and the evidence beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.crash.explore import Exploration, explore
from harness.crash.restore import restore
from harness.evidence.evidence import Evidence
from harness.evidence.read import read_evidence
from harness.evidence.write import write_listing
from harness.judge.history import replay
from harness.judge.judge import judge
from tests.harness.judge.cases import Case, correct, killed_run, write_run
from tests.harness.judge.cuts import end_with_cut, materialize


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return read_evidence(write_run(tmp_path / "ran", correct()))


@pytest.fixture
def found(evidence: Evidence) -> Exploration:
    return explore(evidence)


def test_every_state_is_put_on_the_disk_as_its_evidence_tells_it(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    assert len(found.resumable) > 10
    for number, state in enumerate(found.resumable):
        directory = tmp_path / f"state{number}"
        plan = restore(state, found.parts, evidence, directory)
        back = read_evidence(directory)

        names = {path.name for path in (directory / "checkpoints").iterdir()}
        assert names == {name for name, _ in found.parts.names(state.tree)}
        assert replay(back).gaps == ()
        assert len(plan.runs) == state.run + 2 == len(back.runs) + 1


def test_the_story_ends_with_the_power(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    state = next(one for one in found.resumable if one.run == 1 and one.acknowledged == {2, 4})
    restore(state, found.parts, evidence, tmp_path / "state")
    back = read_evidence(tmp_path / "state")

    assert [len(run.operations) for run in back.runs] == [0, 1]
    assert back.runs[1].operations[0].kind == "cut"
    assert back.runs[1].processes.exits == (-9, -9)
    whole = [len(event_log) for event_log in evidence.runs[1].event_logs]
    kept = [len(event_log) for event_log in back.runs[1].event_logs]
    assert all(0 < mine < theirs for mine, theirs in zip(kept, whole, strict=True))


def test_what_the_disk_has_and_the_evidence_does_not_is_noticed(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    state = next(one for one in found.resumable if one.acknowledged == {2} and one.run == 0)
    restore(state, found.parts, evidence, tmp_path / "state")
    shard = tmp_path / "state" / "checkpoints" / "step_2" / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1])
    write_listing(tmp_path / "state" / "run0", tmp_path / "state" / "checkpoints")

    gaps = replay(read_evidence(tmp_path / "state")).gaps
    assert [gap.partition(": file")[0] for gap in gaps] == ["run 0: step_2/__0_0.distcp"]


def test_a_start_that_has_not_happened_proves_nothing(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    restore(found.resumable[-1], found.parts, evidence, tmp_path / "state")

    judgement = judge(read_evidence(tmp_path / "state"))

    assert judgement.outcome == "INVALID"
    assert {one.name for one in judgement.guards if not one.passed} == {"strikes_fired"}


def test_a_state_at_the_end_of_a_run_whose_power_was_cut_has_one_cut(tmp_path: Path) -> None:
    run = killed_run()
    end_with_cut(run, materialize(run, tmp_path / "left"))
    evidence = read_evidence(write_run(tmp_path / "ran", Case(runs=[run])))
    found = explore(evidence)
    last = replace(found.resumable[-1], place=len(run.operations) - 1)

    plan = restore(last, found.parts, evidence, tmp_path / "state")

    assert [one.fault.word for one in plan.runs[0].strikes] == ["kill"]
    assert [one.kind for one in read_evidence(tmp_path / "state").runs[0].operations] == ["cut"]
