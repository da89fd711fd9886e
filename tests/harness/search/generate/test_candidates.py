"""What a baseline trace offers: each operation in two ways, files of a checkpoint, leftovers."""

from __future__ import annotations

from harness.faults.point import Point
from harness.search.generate.candidates import Candidates, read_candidates
from tests.harness.judge.cases import Case, RunCase


def recorded() -> Candidates:
    run = RunCase(until_step=4)
    run.do("open", ".lock", save=None)
    run.start()
    run.train(1, 2)
    run.save(2)
    run.train(3, 4)
    run.save(4)
    run.finish(4)
    return read_candidates(Case(runs=[run]).evidence())


def test_an_operation_is_named_by_its_path_or_counted_in_its_phase() -> None:
    candidates = [one for one in recorded().of_save(2) if one.named.operation == "rename"]
    assert [one.named.path for one in candidates if one.named.phase == "publish"] == [
        ".latest-new",
        ".staging-step_4",
    ]
    assert [one.counted for one in candidates if one.named.path == ".latest-new"] == [
        Point(rank=0, save=2, phase="publish", operation="rename", nth=2)
    ]


def test_operations_outside_of_saves_are_named_only() -> None:
    (candidate,) = recorded().outside_of_saves()
    assert candidate.named == Point(rank=0, operation="open", path=".lock")
    assert candidate.counted is None


def test_the_shards_of_the_newest_checkpoint_are_one_pattern() -> None:
    assert recorded().files == ("*.distcp", ".metadata", "metadata.json", "train_state.pt")


def test_leftovers_are_those_that_this_implementation_could_leave() -> None:
    assert recorded().leftovers == ("staging", "link")
    assert recorded().saves == 2
