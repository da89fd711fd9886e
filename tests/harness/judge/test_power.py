"""Judging a run that ended with a power cut: what it left, what it took, and who is to blame."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.disk.tree import FileSystem
from harness.evidence.cut import cut_operation, read_entries
from harness.evidence.store import ByteStore
from harness.evidence.write import list_entries
from harness.judge.judge import Judgement, judge
from harness.judge.power import taken
from harness.scenario.schema import Checkpoint
from tests.harness.judge.cases import Case, RunCase, correct, killed_run, resumed_run
from tests.harness.judge.cuts import end_with_cut, evidence_of, materialize, write


def violated(judgement: Judgement) -> set[str]:
    return {one.property for one in judgement.verdicts if one.state == "violated"}


def test_a_listing_is_told_and_replayed_as_it_lies_on_the_disk(tmp_path: Path) -> None:
    left = write(tmp_path / "left", {"step_2/a": b"one", "step_2/pp0/b": b"", "c": b"three"})
    (left / "latest").symlink_to("./step_2/")
    store = ByteStore(tmp_path / "written")
    store.add(b"other")
    cut = cut_operation(read_entries(left, store), store, index=0, rank=-1, time_s=0.0)
    files = FileSystem()

    files.apply(cut, store)

    assert files.snapshot() == list_entries(left)


def test_what_came_through_a_power_cut_is_the_same_as_before(tmp_path: Path) -> None:
    run = RunCase()
    run.fill("step_2", {"a": b"whole"})
    run.fill("step_4", {"a": b"torn"})
    left = write(tmp_path / "left", {"step_2/a": b"whole", "step_4/a": b"to"})
    end_with_cut(run, left)
    files = FileSystem()
    for operation in run.operations[:-1]:
        files.apply(operation, bytes(run.written))
    before = dict(files.root.entries)

    files.apply(run.operations[-1], bytes(run.written))

    assert files.root.entries["step_2"] is before["step_2"]
    assert files.root.entries["step_4"] is not before["step_4"]
    assert list_entries(left) == files.snapshot()


def test_a_correct_job_whose_unsynced_names_are_gone_is_green(tmp_path: Path) -> None:
    """The save of step 4 had its name and `latest`, but nobody had been told."""
    first, second = killed_run(), resumed_run()
    left = materialize(first, tmp_path / "left")
    first.stage(4)
    first.commit(4, sync=False)
    first.point(4, sync=False)
    end_with_cut(first, left)

    judgement = judge(evidence_of(Case(runs=[first, second])))

    assert (judgement.outcome, violated(judgement)) == ("PASS", set())


def test_a_checkpoint_that_the_job_was_told_of_and_that_is_gone_is_lost_work(
    tmp_path: Path,
) -> None:
    first, second = killed_run(), RunCase()
    second.start(None)
    end_with_cut(first, write(tmp_path / "left", {"nothing": b""}))

    judgement = judge(evidence_of(Case(runs=[first, second])))

    assert "nothing_lost" in violated(judgement)


def test_a_checkpoint_that_the_cut_left_half_is_no_checkpoint(tmp_path: Path) -> None:
    first, second = killed_run(), resumed_run()
    left = materialize(first, tmp_path / "left")
    (left / "step_2" / "__0_0.distcp").write_bytes(b"")
    end_with_cut(first, left)

    judgement = judge(evidence_of(Case(runs=[first, second])))

    assert {"latest_durable", "whole_or_absent"} <= violated(judgement)
    assert judgement.outcome == "HARD_FAIL"


@pytest.mark.parametrize("keep_last_n", [1, 2])
def test_what_a_power_cut_took_does_not_count_against_retention(
    keep_last_n: int, tmp_path: Path
) -> None:
    first, second = killed_run(), resumed_run()
    left = materialize(first, tmp_path / "left")
    first.stage(4)
    first.commit(4, sync=False)
    first.point(4, sync=False)
    end_with_cut(first, left)
    case = Case(runs=[first, second], checkpoint=Checkpoint(keep_last_n=keep_last_n))

    retention = {
        one.property: one for one in judge(evidence_of(case)).verdicts
    }["retention"]  # fmt: skip

    assert not [one for one in retention.details if one.startswith("run 0")]


def test_a_power_cut_without_its_proof_proves_nothing(tmp_path: Path) -> None:
    first, second = killed_run(), resumed_run()
    end_with_cut(first, materialize(first, tmp_path / "left"))

    judgement = judge(evidence_of(Case(runs=[first, second]), proven=False))

    (failed,) = [one for one in judgement.guards if not one.passed]
    assert failed.name == "strikes_complete"
    assert "its trace does not end with what the power cut left" in failed.details[0]
    assert judgement.outcome == "INVALID"


def test_a_rank_that_did_something_after_the_cut_spoils_the_proof(tmp_path: Path) -> None:
    first, second = killed_run(), resumed_run()
    end_with_cut(first, materialize(first, tmp_path / "left"))
    first.fired = [dataclasses.replace(one, index=one.index - 1) for one in first.fired]

    judgement = judge(evidence_of(Case(runs=[first, second])))

    (failed,) = [one for one in judgement.guards if not one.passed]
    assert (failed.name, judgement.outcome) == ("strikes_complete", "INVALID")


def test_what_lay_there_before_the_cut_has_to_be_what_the_trace_says(tmp_path: Path) -> None:
    first, second = killed_run(), resumed_run()
    end_with_cut(first, materialize(first, tmp_path / "left"))
    evidence = evidence_of(Case(runs=[first, second]))
    run = evidence.runs[0]
    assert run.cut is not None
    unseen = {path: entry for path, entry in run.cut.before.items() if path != "latest"}
    cut = dataclasses.replace(run.cut, before=unseen)
    evidence = dataclasses.replace(
        evidence, runs=(dataclasses.replace(run, cut=cut), *evidence.runs[1:])
    )

    judgement = judge(evidence)

    assert judgement.outcome == "INVALID"
    (failed,) = [one for one in judgement.guards if not one.passed]
    assert failed.details == (
        "run 0, before the power cut: latest: symlink step_2 by the trace, absent on disk",
    )


def test_what_a_cut_took_is_told_in_names_and_bytes(tmp_path: Path) -> None:
    run = killed_run()
    run.put("gone", b"12345")
    run.put("shorter", b"12345")
    run.do("rename", "step_2", "step_3")
    left = materialize(killed_run(), tmp_path / "left")
    (left / "shorter").write_bytes(b"12")
    end_with_cut(run, left)

    described = taken(evidence_of(Case(runs=[run])), 0)

    assert described is not None
    assert "gone" in described.gone
    assert "step_3/metadata.json" in described.gone
    assert "step_2/metadata.json" in described.back
    assert (described.other, described.lost_bytes) == (("shorter",), 8)
    assert str(described).endswith("1 names changed, 8 bytes lost")


def test_a_run_that_ended_otherwise_lost_nothing_in_a_cut() -> None:
    assert taken(correct().evidence(), 0) is None
