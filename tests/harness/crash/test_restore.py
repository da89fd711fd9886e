"""A crash state on the disk, and the evidence beside it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.crash.explore import CrashState, Exploration, explore
from harness.crash.instants import leading_runs
from harness.crash.restore import restore
from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES
from harness.disk.replay import before_run
from harness.evidence.evidence import Evidence
from harness.evidence.read import read_evidence
from harness.evidence.write import write_listing
from harness.judge.history import replay
from harness.judge.judge import judge
from harness.plan.model import Plan
from harness.run.beginning import begin, beginning_of
from tests.harness.judge.cases import Case, correct, killed_run, write_run
from tests.harness.judge.cuts import end_with_cut, materialize


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    return read_evidence(write_run(tmp_path / "ran", correct()))


@pytest.fixture
def found(evidence: Evidence) -> Exploration:
    return explore(evidence)


def put(state: CrashState, found: Exploration, evidence: Evidence, directory: Path) -> Plan:
    """Put the state where a plan begins with it; the plan."""
    plan, beginning = restore(state, found.parts, evidence)
    prepare(plan, evidence, directory)
    begin(beginning, directory, disk=None)
    return plan


def prepare(plan: Plan, evidence: Evidence, directory: Path) -> None:
    (directory / "checkpoints").mkdir(parents=True)
    shutil.copytree(Path(evidence.directory) / "reference", directory / "reference")
    (directory / "plan.json").write_text(plan.model_dump_json(), encoding="utf-8")


def test_every_state_is_put_on_the_disk_as_its_evidence_tells_it(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    assert len(found.resumable) > 10
    for number, state in enumerate(found.resumable):
        directory = tmp_path / f"state{number}"
        plan = put(state, found, evidence, directory)
        back = read_evidence(directory)

        names = {path.name for path in (directory / "checkpoints").iterdir()}
        assert names == {name for name, _ in found.parts.names(state.tree)}
        assert replay(back).gaps == ()
        assert len(plan.runs) == state.run + 2 == len(back.runs) + 1


def test_the_story_ends_with_the_power(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    state = next(one for one in found.resumable if one.run == 1 and one.acknowledged == {2, 4})
    put(state, found, evidence, tmp_path / "state")
    back = read_evidence(tmp_path / "state")

    assert [run.operations for run in back.runs] == [(), ()]
    assert back.runs[0].processes == evidence.runs[0].processes
    assert back.runs[1].processes.exits == ()
    whole = [len(event_log) for event_log in evidence.runs[1].event_logs]
    kept = [len(event_log) for event_log in back.runs[1].event_logs]
    assert all(0 < mine < theirs for mine, theirs in zip(kept, whole, strict=True))


def test_what_the_disk_has_and_the_evidence_does_not_is_noticed(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    state = next(one for one in found.resumable if one.acknowledged == {2} and one.run == 0)
    put(state, found, evidence, tmp_path / "state")
    shard = tmp_path / "state" / "checkpoints" / "step_2" / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-1])
    write_listing(tmp_path / "state" / "run0", tmp_path / "state" / "checkpoints")

    gaps = replay(read_evidence(tmp_path / "state")).gaps
    assert [gap.partition(": file")[0] for gap in gaps] == ["run 0: step_2/__0_0.distcp"]


def test_a_start_that_has_not_happened_proves_nothing(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    put(found.resumable[-1], found, evidence, tmp_path / "state")

    judgement = judge(read_evidence(tmp_path / "state"))

    assert judgement.outcome == "INVALID"
    assert {one.name for one in judgement.guards if not one.passed} == {"strikes_complete"}


def test_a_run_that_was_cut_before_it_decided_where_to_resume_owes_no_decision(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    state = next(one for one in found.resumable if one.run == 1)
    put(replace(state, place=-1), found, evidence, tmp_path / "state")
    verdicts = judge(read_evidence(tmp_path / "state")).verdicts
    assert [one.state for one in verdicts if one.property == "nothing_lost"] == ["holds"]


def test_a_state_at_the_end_of_a_run_whose_power_was_cut_has_one_cut(tmp_path: Path) -> None:
    run = killed_run()
    end_with_cut(run, materialize(run, tmp_path / "left"))
    evidence = read_evidence(write_run(tmp_path / "ran", Case(runs=[run])))
    found = explore(evidence)
    last = replace(found.resumable[-1], place=len(run.operations) - 1)

    plan = put(last, found, evidence, tmp_path / "state")

    back = read_evidence(tmp_path / "state")
    assert plan.runs[0].strikes == ()
    assert (back.runs[0].operations, back.runs[0].cut) == ((), None)


def test_what_was_given_can_be_given_again(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    for number, state in enumerate(found.resumable[::5]):
        plan = put(state, found, evidence, tmp_path / f"first{number}")
        first = read_evidence(tmp_path / f"first{number}")
        beginning = beginning_of(first)
        assert beginning is not None
        prepare(plan, evidence, tmp_path / f"again{number}")
        begin(beginning, tmp_path / f"again{number}", disk=None)
        again = read_evidence(tmp_path / f"again{number}")
        assert first.given is not None
        assert again.given is not None
        assert again.given.operation == first.given.operation
        size = first.given.operation.size + (first.given.operation.data or 0)
        assert again.given.written[0:size] == first.given.written[0:size]
        logs = [[one.event_logs for one in each.runs] for each in (first, again)]
        assert logs[0] == logs[1]
    assert beginning_of(evidence) is None


def test_a_run_that_goes_on_from_there_is_told_with_what_it_found(
    found: Exploration, evidence: Evidence, tmp_path: Path
) -> None:
    state = next(one for one in found.resumable if one.run == 1 and one.acknowledged == {2, 4})
    put(state, found, evidence, tmp_path / "state")
    back = read_evidence(tmp_path / "state")
    disk = Disk(PROFILES["posix"])
    disk.follow(before_run(back, 2))
    assert set(disk.files.root.entries) == {name for name, _ in found.parts.names(state.tree)}
    assert list(before_run(back, 1)) == []
    assert leading_runs(back) == ()
