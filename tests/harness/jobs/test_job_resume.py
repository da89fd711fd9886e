"""Interrupted and resumed training equals uninterrupted training, bit for bit, on every rank."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.evidence.record import Record, Resumed
from harness.plan.model import Plan
from harness.scenario.schema import FreezePlan
from tests.harness.jobs.drive import (
    EARLY_STEPS_TOO,
    EVERY_SECOND_STEP,
    UNFREEZE_VISION_AT_5,
    Warm,
    differing,
    event_logs,
    make_plan,
    only,
    steps,
    without_checkpoints,
)

# With 32 samples and a batch of 4, two shards have 4 steps an epoch: a run that ends at step 5
# resumes from 4, an epoch's end, and one that ends at 7 resumes from 6, in the middle.
LAYOUTS = [
    pytest.param((1, 1), "tiny_transformer", 2, id="one rank, two loader workers"),
    pytest.param((1, 2), "tiny_vlm", 0, id="two shards, vlm"),
    pytest.param((1, 2), "tiny_transformer", 2, id="two shards, two loader workers each"),
    pytest.param((1, 4), "tiny_transformer", 0, id="four shards"),
    pytest.param((2, 1), "tiny_vlm", 2, id="two stages, vlm, two loader workers each"),
    pytest.param((2, 2), "tiny_transformer", 0, id="two stages of two shards"),
    pytest.param((2, 2), "tiny_vlm", 0, id="two stages of two shards, vlm"),
]


def run_all(warm: Warm, directory: Path, plan: Plan) -> list[list[list[Record]]]:
    directory.mkdir()
    for run in range(len(plan.runs)):
        codes = warm.run(directory, plan, run)
        described = [event_log[-1] for event_log in event_logs(directory, plan, run)]
        assert set(codes) == {0}, described
    return [event_logs(directory, plan, run) for run in range(len(plan.runs))]


def freeze_of(preset: str) -> FreezePlan | None:
    return UNFREEZE_VISION_AT_5 if preset == "tiny_vlm" else None


@pytest.mark.parametrize(("world", "preset", "workers"), LAYOUTS)
def test_resumed_twice_equals_uninterrupted_and_unsaved(
    warm: Warm, tmp_path: Path, world: tuple[int, int], preset: str, workers: int
) -> None:
    plan = make_plan(
        5,
        7,
        9,
        world=world,
        preset=preset,
        workers=workers,
        checkpoint=EVERY_SECOND_STEP,
        freeze=freeze_of(preset),
    )
    (reference,) = run_all(warm, tmp_path / "reference", without_checkpoints(plan))
    runs = run_all(warm, tmp_path / "job", plan)
    for rank, event_log in enumerate(reference):
        truth = steps(event_log)
        assert sorted(truth) == list(range(1, 10))
        assert [only(run[rank], Resumed).step for run in runs] == [None, 4, 6]
        assert [only(run[rank], Resumed).source for run in runs] == [None, "step_4", "step_6"]
        for run in runs:
            for step, record in steps(run[rank]).items():
                assert differing(record, truth[step]) == [], f"rank {rank}, step {step}"


def test_state_after_load_is_the_state_that_was_saved(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(4, 5, checkpoint=EVERY_SECOND_STEP)
    first, second = run_all(warm, tmp_path / "job", plan)
    for before, after in zip(first, second, strict=True):
        assert only(after, Resumed).state == steps(before)[4].state
        assert only(after, Resumed).epoch == 0
        assert only(after, Resumed).tokens_seen == 4 * 2 * 4 * 16


def test_two_runs_are_equal_and_their_ranks_draw_different_numbers(
    warm: Warm, tmp_path: Path
) -> None:
    plan = make_plan(3)
    (first,) = run_all(warm, tmp_path / "first", plan)
    (second,) = run_all(warm, tmp_path / "second", plan)
    assert [steps(event_log) for event_log in first] == [steps(event_log) for event_log in second]
    generators = [steps(event_log)[3].state.rng for event_log in first]
    for name in ("python", "numpy", "torch"):
        assert generators[0][name] != generators[1][name]


def test_older_checkpoint_is_loaded_when_the_run_names_it(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(4, 6, checkpoint=EVERY_SECOND_STEP, load_step=2)
    (reference,) = run_all(warm, tmp_path / "reference", without_checkpoints(plan))
    _, second = run_all(warm, tmp_path / "job", plan)
    assert only(second[0], Resumed).source == "step_2"
    again = steps(second[0])
    assert sorted(again) == [3, 4, 5, 6]
    assert all(differing(record, steps(reference[0])[n]) == [] for n, record in again.items())


def test_step_zero_is_saved_once_and_resumed_from(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(1, 3, checkpoint=EARLY_STEPS_TOO, load_step=0)
    first, second = run_all(warm, tmp_path / "job", plan)
    saves = [[one.step for one in run[0] if one.kind == "save_began"] for run in (first, second)]  # type: ignore[attr-defined]
    assert saves == [[0, 1], [1, 2]]
    assert only(second[0], Resumed).step == 0
    assert steps(second[0])[1] == steps(first[0])[1]
