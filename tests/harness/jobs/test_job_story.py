"""What a rank tells of itself, in which order, when all goes well and when it does not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.evidence.record import (
    Drained,
    Entered,
    Evaluated,
    Finished,
    Raised,
    Record,
    SaveBegan,
    Started,
)
from harness.jobs.training.event_log import EventLog
from harness.plan.model import Implementation
from harness.scenario.schema import Data, Evaluating, Model
from harness.world import World
from tests.harness.jobs.drive import (
    EVERY_SECOND_STEP,
    ROOT,
    UNFREEZE_VISION_AT_5,
    Warm,
    event_logs,
    kinds,
    make_plan,
    only,
    steps,
)


def test_a_run_with_saves_is_told_in_the_order_in_which_it_happened(
    warm: Warm, tmp_path: Path
) -> None:
    plan = make_plan(3, world=(1, 1), checkpoint=EVERY_SECOND_STEP)
    assert warm.run(tmp_path, plan) == [0]
    (event_log,) = event_logs(tmp_path, plan)
    assert kinds(event_log) == [
        "started",
        "entered",
        "resumed",
        "entered",
        "stepped",
        "stepped",
        "save_began",
        "save_returned",
        "stepped",
        "entered",
        "drained",
        "finished",
    ]
    periods = [one.period for one in event_log if isinstance(one, Entered)]
    assert periods == ["building", "training", "ending"]
    assert only(event_log, Started).versions.keys() == {"python", "torch", "torchdata", "numpy"}
    assert only(event_log, Finished) == Finished(step=3, reason="until_step", threads=())


@pytest.mark.parametrize("world", [(1, 2), (2, 1)])
def test_an_evaluation_changes_nothing(warm: Warm, tmp_path: Path, world: tuple[int, int]) -> None:
    plain = make_plan(3, world=world)
    workload = plain.workload.model_copy(update={"evaluation": Evaluating(interval=2)})
    found = []
    for name, plan in (
        ("plain", plain),
        ("evaluated", plain.model_copy(update={"workload": workload})),
    ):
        directory = tmp_path / name
        directory.mkdir()
        assert warm.run(directory, plan) == [0, 0]
        found.append(event_logs(directory, plan))
    assert [steps(event_log) for event_log in found[0]] == [
        steps(event_log) for event_log in found[1]
    ]
    evaluated = [one for one in found[1][1] if isinstance(one, Evaluated)]
    assert [one.step for one in evaluated] == [2, 3]
    losses = [float.fromhex(one.loss or "nan") for one in evaluated]
    trained = [float.fromhex(steps(found[1][1])[one.step].loss or "nan") for one in evaluated]
    assert losses[0] > losses[1]
    assert losses != trained


def test_training_really_trains(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(8)
    assert warm.run(tmp_path, plan) == [0, 0]
    for event_log in event_logs(tmp_path, plan):
        described = steps(event_log)
        losses = [float.fromhex(described[step].loss or "nan") for step in sorted(described)]
        assert losses[-1] < losses[0] - 0.3
        assert len({described[step].lr for step in described}) == 8
        for before, after in ((described[step], described[step + 1]) for step in range(1, 8)):
            assert before.trained == len(before.state.params)
            assert all(before.state.params[name] != after.state.params[name]
                       for name in before.state.params)  # fmt: skip
            assert before.state.rng.keys() == {"python", "numpy", "torch"}
            assert all(before.state.rng[name] != after.state.rng[name] for name in after.state.rng)


def test_each_sample_is_seen_once_an_epoch(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(8, world=(1, 2), samples=32, workers=1)
    assert warm.run(tmp_path, plan) == [0, 0]
    described = [steps(event_log) for event_log in event_logs(tmp_path, plan)]
    for epoch in (0, 1):
        seen = [n for one in described for step in one.values() if step.epoch == epoch
                for n in step.samples]  # fmt: skip
        assert sorted(seen) == list(range(32))
    assert described[0][1].samples != described[0][5].samples


def test_frozen_module_stands_still_and_trains_once_it_is_unfrozen(
    warm: Warm, tmp_path: Path
) -> None:
    plan = make_plan(
        6, preset="tiny_vlm", checkpoint=EVERY_SECOND_STEP, freeze=UNFREEZE_VISION_AT_5
    )
    assert warm.run(tmp_path, plan) == [0, 0]
    for event_log in event_logs(tmp_path, plan):
        described = steps(event_log)
        vision = [name for name in described[1].state.params if name.startswith("vision_encoder.")]
        assert len(vision) == 3
        assert [described[step].frozen for step in (1, 4, 5)] == [
            ("vision_encoder",), ("vision_encoder",), (),
        ]  # fmt: skip
        assert described[5].trained == described[4].trained + 3
        for name in vision:
            assert described[1].state.params[name] == described[4].state.params[name]
            assert described[4].state.params[name] != described[5].state.params[name]
            assert f"{name}.exp_avg" not in described[4].state.moments
            assert f"{name}.exp_avg" in described[5].state.moments
        drained = [one.call for one in event_log if isinstance(one, Drained)]
        assert drained == ["flush_pending_save", "wait"]


@pytest.mark.parametrize("rank", [0, 1, None])
def test_signal_to_any_rank_ends_all_after_the_same_emergency_save(
    warm: Warm, tmp_path: Path, rank: int | None
) -> None:
    plan = make_plan(2000, checkpoint=EVERY_SECOND_STEP.model_copy(update={"interval": 1000}))
    assert warm.run(tmp_path, plan, strike=(rank, signal.SIGTERM, 3)) == [0, 0]
    described = event_logs(tmp_path, plan)
    last = [event_log[-5:] for event_log in described]
    assert [kinds(event_log) for event_log in last] == [
        ["save_began", "save_returned", "entered", "drained", "finished"]
    ] * 2
    ends = {
        (only(event_log, SaveBegan).step, only(event_log, Finished).step) for event_log in described
    }
    assert len(ends) == 1
    assert only(described[0], Finished).reason == "shutdown"


def test_survivor_of_a_killed_rank_tells_what_it_met_and_ends(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(2000, workers=2)
    assert warm.run(tmp_path, plan, strike=(1, signal.SIGKILL, 3)) == [1, -9]
    survivor, victim = event_logs(tmp_path, plan)
    assert only(survivor, Raised).during == "step"
    assert "finished" not in kinds(victim)
    assert kinds(victim)[-1] == "stepped"


def test_missing_checkpoint_is_told_as_raised_while_loading(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(2, checkpoint=EVERY_SECOND_STEP, load_step=8)
    assert warm.run(tmp_path, plan) == [1, 1]
    for event_log in event_logs(tmp_path, plan):
        assert kinds(event_log) == ["started", "entered", "entered", "raised"]
        assert only(event_log, Raised).during == "load"


def test_unknown_implementation_is_told_as_raised(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(
        2,
        world=(1, 1),
        checkpoint=EVERY_SECOND_STEP,
        implementation=Implementation(name="nowhere:Manager"),
    )
    assert warm.run(tmp_path, plan) == [1]
    raised = only(event_logs(tmp_path, plan)[0], Raised)
    assert (raised.during, raised.type) == ("build", "ModuleNotFoundError")


def test_too_few_samples_are_told_with_what_is_needed(warm: Warm, tmp_path: Path) -> None:
    plan = make_plan(2, samples=7)
    assert Data().batch_size == 4
    assert warm.run(tmp_path, plan) == [1, 1]
    raised = only(event_logs(tmp_path, plan)[0], Raised)
    assert raised.message == (
        "7 samples do not fill one batch of 4 on each of 2 data-parallel ranks"
    )


EVERYTHING = Model(precision="bf16_mixed", recompute=True, compile=True)


@pytest.mark.parametrize(
    ("world", "model"),
    [
        pytest.param(World(dp_shard=2), Model(preset="tiny_vlm"), id="fsdp2, vlm"),
        pytest.param(World(dp_replicate=2), EVERYTHING, id="ddp2, every wrapper"),
        pytest.param(World(dp_shard=2), EVERYTHING, id="fsdp2, every wrapper"),
        pytest.param(World(tp=2), Model(recompute=True), id="tp2"),
        pytest.param(World(pp=2, schedule="interleaved"), Model(layers=4), id="pp2 interleaved"),
    ],
)
def test_cold_start_trains_exactly_like_a_warm_one(
    warm: Warm, tmp_path: Path, world: World, model: Model
) -> None:
    plan = make_plan(3, world=world, model=model)
    for name in ("warm", "cold"):
        (tmp_path / name / "run0").mkdir(parents=True)
    assert warm.run(tmp_path / "warm", plan) == [0, 0]
    (tmp_path / "cold" / "plan.json").write_text(plan.model_dump_json())
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "harness.jobs.training.rank",
                str(tmp_path / "cold"),
                "0",
                str(rank),
            ],
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert [steps(event_log) for event_log in event_logs(tmp_path / "cold", plan)] == [
        steps(event_log) for event_log in event_logs(tmp_path / "warm", plan)
    ]


def _divide(event_log: EventLog) -> None:
    with event_log.during("save"):
        raise ZeroDivisionError("by zero")


def test_the_call_that_raised_is_named_also_when_it_is_inside_another(tmp_path: Path) -> None:
    event_log = EventLog(tmp_path / "rank0.jsonl")
    with event_log.during("step"):
        with event_log.draining("wait"):
            pass
        with pytest.raises(ZeroDivisionError) as caught:
            _divide(event_log)
        event_log.record_raised(caught.value)
    lines = (tmp_path / "rank0.jsonl").read_text().splitlines()
    described: list[Record] = [Drained(call="wait")]
    assert lines[0] == described[0].to_line()
    assert '"during":"save","type":"ZeroDivisionError","message":"by zero"' in lines[1]
