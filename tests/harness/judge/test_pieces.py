"""A run whose shards are cut otherwise is held to the run that it continues, tensor by tensor."""

from __future__ import annotations

import dataclasses

import pytest

from harness.evidence.evidence import Evidence
from harness.evidence.record import Record, Resumed, StateDigest, Stepped, keep_word
from harness.judge.changed_run import changed_run
from harness.judge.pieces import join, piece_differences
from harness.judge.properties import JUDGES
from harness.plan.model import Plan, RunPlan
from harness.world import World
from tests.harness.judge.cases import correct

SHARDS, REPLICAS, ONE = World(dp_shard=2), World(dp_replicate=2), World()
Event_logs = list[list[Record]]


def pieces(*described: str) -> StateDigest:
    """A rank that holds these, written as `name@place=digest`."""
    split = [one.replace("@", "=").split("=") for one in described]
    return StateDigest(
        params={},
        moments={},
        rng={},
        pieces={name: f"{place} {value}" for name, place, value in split},
    )


def state(rank: int, world: World, step: int) -> StateDigest:
    """Halves with digests 3 + step and 4, or the whole with their sum."""
    if world.is_sharded and world.size == 2:
        described = (f"w@0+2={3 + step:x}", "w@2+2=4")[rank]
    else:
        described = f"w@0+4={7 + step:x}"
    return dataclasses.replace(pieces(described), params={"w": f"{world} {rank} {step}"})


def event_logs(world: World, start: int | None, until: int) -> Event_logs:
    """What the ranks of a run tell; together they read two samples a step."""
    described: Event_logs = []
    for rank in range(world.size):
        event_log: list[Record] = [
            Resumed(
                source=None if start is None else f"step_{start}",
                step=start,
                tokens_seen=8 * (start or 0),
                epoch=0,
                state=state(rank, world, start or 0),
                frozen=(),
                kept=None if start is None else keep_word(start, 0),
            )
        ]
        for step in range((start or 0) + 1, until + 1):
            both = (2 * step, 2 * step + 1)
            event_log.append(
                Stepped(
                    step=step,
                    epoch=0,
                    loss=(5.0 + rank - world.size / 2).hex(),
                    lr=((0.1 / step).hex(),),
                    samples=both if world.size == 1 else both[rank : rank + 1],
                    frozen=(),
                    trained=1,
                    state=state(rank, world, step),
                    tokens_seen=8 * step,
                )
            )
        described.append(event_log)
    return described


def evidence(world: World, described: Event_logs) -> Evidence:
    """Two shards until step 4, then what is given."""
    plain = correct().evidence()
    workload = plain.plan.workload.model_copy(update={"world": SHARDS})
    plans = (
        RunPlan(until_step=4, deadline_s=60.0),
        RunPlan(until_step=6, deadline_s=60.0, world=world),
    )
    plan: Plan = plain.plan.model_copy(update={"workload": workload, "runs": plans})
    runs = [
        dataclasses.replace(plain.runs[0], event_logs=tuple(tuple(one) for one in ranks))
        for ranks in (event_logs(SHARDS, None, 4), described)
    ]
    reference = tuple(tuple(one) for one in event_logs(SHARDS, None, 6))
    return Evidence(directory="", plan=plan, reference=reference, runs=tuple(runs))


@pytest.mark.parametrize("world", [ONE, REPLICAS], ids=str)
def test_whole_tensors_are_what_their_shards_were(world: World) -> None:
    found = evidence(world, event_logs(world, 4, 6))
    assert found.plan.rearranges
    differences, compared = changed_run(found, 1)
    # A replica here tells a loss of its own; only the mean is compared.
    assert [one for one in differences if "loss" not in one] == []
    assert compared == 3 * world.size


def with_start(described: Event_logs, rank: int, found: StateDigest) -> Event_logs:
    """The same, but a rank holds something else at its start."""
    start = described[rank][0]
    assert isinstance(start, Resumed)
    params = start.state.params
    described[rank][0] = dataclasses.replace(start, state=dataclasses.replace(found, params=params))
    return described


@pytest.mark.parametrize(
    ("rank", "found", "expected"),
    [
        (1, "w@0+4=c", "two ranks hold w differently"),
        (1, "v@0+4=b", "v was not there"),
    ],
)
def test_a_replica_that_holds_something_else_is_named(rank: int, found: str, expected: str) -> None:
    described = with_start(event_logs(REPLICAS, 4, 6), rank, pieces(found))
    differences, _ = changed_run(evidence(REPLICAS, described), 1)
    assert f"all ranks, resumed at step 4: {expected}" in differences


def test_a_tensor_that_differs_as_a_whole_is_named() -> None:
    described = with_start(event_logs(ONE, 4, 6), 0, pieces("w@0+4=c"))
    differences, _ = changed_run(evidence(ONE, described), 1)
    assert differences == ["all ranks, resumed at step 4: w differs"]


def test_pieces_that_nobody_told_prove_nothing() -> None:
    described = with_start(event_logs(ONE, 4, 6), 0, pieces())
    differences, _ = changed_run(evidence(ONE, described), 1)
    assert differences == [
        "all ranks, resumed at step 4: no rank recorded the pieces that it holds"
    ]


def test_all_ranks_together_read_on_where_the_others_stopped() -> None:
    history = correct().history()
    described = event_logs(ONE, 4, 6)
    judge = JUDGES["samples_exactly_once"]
    assert judge(evidence(ONE, described), history).state == "holds"
    six = described[0][2]
    assert isinstance(six, Stepped)
    described[0][2] = dataclasses.replace(six, samples=(8, 9))
    assert judge(evidence(ONE, described), history).details == (
        "all ranks, step 6: saw samples [8, 9], not [12, 13]",
        "all ranks, sample 8 is seen twice in epoch 0, at step 6",
    )


def test_the_sum_of_digests_goes_round_at_64_bits() -> None:
    ends = (pieces("w@0+1=ffffffffffffffff"), pieces("w@1+1=2"))
    assert join(ends) == ({"w": (1, 2)}, [])
    assert piece_differences(ends, [pieces("w@0+2=1")]) == []
