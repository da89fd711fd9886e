"""A run of another layout is held to the run that it continues, shard by shard and by name."""

from __future__ import annotations

import dataclasses

import pytest

from harness.evidence.descent import parent_of
from harness.evidence.evidence import Evidence
from harness.evidence.record import Record, Resumed, StateDigest, Stepped, keep_word
from harness.judge.changed_run import changed_run, not_judged
from harness.judge.lineage import counterpart, follows_reference, same_shard
from harness.judge.properties import JUDGES
from harness.plan.model import Plan, RunPlan
from harness.scenario.schema import FreezePlan
from harness.world import World
from tests.harness.judge.cases import correct

TWO = World(pp=2)
NAMES = ("a", "b")
Event_logs = list[list[Record]]


def state(names: tuple[str, ...], step: int) -> StateDigest:
    """What a stage with these parameters holds after a step."""
    params = {name: f"{name} at {step}" for name in names}
    moments = {f"{name}.exp_avg": f"{name} moment at {step}" for name in names if step}
    groups = {"0.lr": repr(0.1 / max(step, 1))}
    rng = {"torch": f"{names} at {step}"}
    return StateDigest(params=params, moments=moments, rng=rng, groups=groups)


def stepped(names: tuple[str, ...], step: int) -> Stepped:
    """A finished step; the stage with `b` is the last."""
    return Stepped(
        step=step,
        epoch=0,
        loss=(5.0 - step / 10).hex() if "b" in names else None,
        lr=((0.1 / step).hex(),),
        samples=(2 * step, 2 * step + 1),
        frozen=(),
        trained=1,
        state=state(names, step),
        tokens_seen=8 * step,
    )


def started(names: tuple[str, ...], step: int | None) -> Resumed:
    """A start."""
    return Resumed(
        source=None if step is None else f"step_{step}",
        step=step,
        tokens_seen=8 * (step or 0),
        epoch=0,
        state=state(names, step or 0),
        frozen=(),
        kept=None if step is None else keep_word(step, 0),
    )


def event_logs(world: World, start: int | None, until: int) -> Event_logs:
    """What the ranks of a run tell."""
    parts = [("a",), ("b",)] if world.pp == 2 else [NAMES]
    steps = range((start or 0) + 1, until + 1)
    return [[started(names, start), *(stepped(names, step) for step in steps)] for names in parts]


def evidence(
    *runs: tuple[World, Event_logs],
    freeze: FreezePlan | None = None,
    changed: Event_logs | None = None,
) -> Evidence:
    """Runs of a job that begins with two stages; `freeze` is that of the last run.

    `changed` is what a reference recorded that makes the change of the second run.
    """
    plain = correct().evidence()
    workload = plain.plan.workload.model_copy(update={"world": TWO})
    plans = [RunPlan(until_step=8, deadline_s=60.0, world=world) for world, _ in runs]
    plans[-1] = plans[-1].model_copy(update={"freeze": freeze})
    plan: Plan = plain.plan.model_copy(update={"workload": workload, "runs": tuple(plans)})
    found = [
        dataclasses.replace(plain.runs[0], event_logs=tuple(tuple(one) for one in described))
        for _, described in runs
    ]
    reference = tuple(tuple(one) for one in event_logs(TWO, None, 8))
    return Evidence(
        directory="",
        plan=plan,
        reference=reference,
        runs=tuple(found),
        changed={} if changed is None else {1: tuple(tuple(one) for one in changed)},
    )


def joined() -> tuple[tuple[World, Event_logs], ...]:
    """Two stages until step 4, then one until step 6."""
    return (TWO, event_logs(TWO, None, 4)), (World(), event_logs(World(), 4, 6))


def test_two_stages_that_become_one_and_two_again_are_compared_by_name() -> None:
    found = evidence(*joined(), (TWO, event_logs(TWO, 6, 8)))
    assert [follows_reference(found, run) for run in range(3)] == [True, False, False]
    assert [parent_of(found, run) for run in range(3)] == [None, 0, 1]
    assert changed_run(found, 1) == ([], 3)
    # Its random draws are those of nobody, as its parent had another arrangement.
    assert changed_run(found, 2) == ([], 6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"params": {"a": "a at 4", "b": "other"}}, "parameter b differs"),
        ({"moments": {"a.exp_avg": "a moment at 4"}}, "moment b.exp_avg is missing"),
        ({"groups": {"0.lr": "0.1"}}, "optimizer setting 0.lr is 0.1, not 0.025"),
        ({"groups": {}}, "optimizer setting 0.lr is missing, not 0.025"),
    ],
)
def test_what_a_stage_had_and_the_joined_job_has_not_is_named(
    change: dict[str, dict[str, str]], expected: str
) -> None:
    first, (world, described) = joined()
    start = described[0][0]
    assert isinstance(start, Resumed)
    described[0][0] = dataclasses.replace(start, state=dataclasses.replace(start.state, **change))
    assert changed_run(evidence(first, (world, described)), 1)[0] == [
        f"rank 0, resumed at step 4: {expected}"
    ]


def test_a_parameter_that_no_stage_holds_any_more_is_missed() -> None:
    first, (world, described) = joined()
    start = described[0][0]
    assert isinstance(start, Resumed)
    described[0][0] = dataclasses.replace(start, state=state(("a",), 4))
    assert changed_run(evidence(first, (world, described)), 1)[0] == ["no stage holds parameter b"]


def test_tokens_extra_values_and_schedule_are_held_to_the_uninterrupted_run() -> None:
    first, (world, described) = joined()
    start, five = described[0][:2]
    assert isinstance(start, Resumed)
    assert isinstance(five, Stepped)
    described[0][0] = dataclasses.replace(start, tokens_seen=0, kept=None)
    described[0][1] = dataclasses.replace(five, lr=((0.5).hex(),))
    found = changed_run(evidence(first, (world, described)), 1)[0]
    assert found[0].endswith(
        "tokens_seen is 0, not 32; "
        "an extra value came back as None, not 'kept with step 4 of run 0'"
    )
    assert found[1].startswith("rank 0, step 5: learning rate is 0.5 ")


def _trained_otherwise(**change: object) -> Evidence:
    """A reference makes the same change; the job differs from it in step 5."""
    first, (world, described) = joined()
    five = described[0][1]
    assert isinstance(five, Stepped)
    described[0][1] = dataclasses.replace(five, **change)  # type: ignore[arg-type]
    return evidence(first, (world, described), changed=event_logs(World(), 4, 6))


def test_a_changed_run_is_held_bit_for_bit_to_a_reference_that_makes_the_same_change() -> None:
    assert changed_run(_trained_otherwise(), 1) == ([], 3)
    nearly = float.fromhex((4.5).hex()) + 2**-50
    found = changed_run(_trained_otherwise(loss=nearly.hex()), 1)[0]
    assert found[0].startswith("rank 0, step 5: loss is 4.5 ")
    state = StateDigest(params={"a": "a at 5", "b": "other"}, moments={}, rng={})
    found = changed_run(_trained_otherwise(state=state), 1)[0]
    assert "parameter b differs" in found[0]


def test_what_no_reference_shows_is_said_and_never_judged_by_a_tolerance() -> None:
    first, (world, described) = joined()
    five = described[0][1]
    assert isinstance(five, Stepped)
    described[0][1] = dataclasses.replace(five, loss=(50.0).hex())
    found = evidence(first, (world, described))
    assert changed_run(found, 1)[0] == []
    missing = "how run 1 trains in its arrangement: no reference makes the same change"
    assert not_judged(found, 1) == missing
    assert JUDGES["resume_exact"](found, correct().history()).lacks == (missing,)
    workload = found.plan.workload.model_copy(update={"optimizer": "muon"})
    found = dataclasses.replace(found, plan=found.plan.model_copy(update={"workload": workload}))
    assert not_judged(found, 1) == (
        "how run 1 trains in its arrangement: no reference for optimizer muon"
    )


def test_ranks_of_another_degree_may_read_other_samples_than_the_reference() -> None:
    first, (world, described) = joined()
    reference = event_logs(World(), 4, 6)
    five = reference[0][1]
    assert isinstance(five, Stepped)
    reference[0][1] = dataclasses.replace(five, samples=(0, 1), loss=(1.0).hex())
    # With the same degree, other samples are a difference.
    found = evidence(first, (world, described), changed=reference)
    assert changed_run(found, 1)[0] != []
    found = evidence(first, (World(dp_shard=2), described * 2), changed=reference * 2)
    assert changed_run(found, 1)[0] == [
        "all ranks, resumed at step 4: no rank recorded the pieces that it holds"
    ]
    assert "read other samples" in (not_judged(found, 1) or "")


def test_with_other_freeze_settings_random_draws_are_compared_at_the_start_alone() -> None:
    second = event_logs(TWO, 4, 6)
    frozen = FreezePlan.model_validate({"base": ({"module": "transformer", "frozen": False},)})
    found = evidence(joined()[0], (TWO, second), freeze=frozen)
    assert changed_run(found, 1) == ([], 6)
    start = second[1][0]
    assert isinstance(start, Resumed)
    second[1][0] = dataclasses.replace(start, state=dataclasses.replace(start.state, rng={}))
    found = evidence(joined()[0], (TWO, second), freeze=frozen)
    assert changed_run(found, 1)[0] == [
        "rank 1, resumed at step 4: random stream torch is missing",
    ]


def test_samples_go_on_with_the_rank_at_the_same_place() -> None:
    found = evidence(*joined())
    history = correct().history()
    assert JUDGES["samples_exactly_once"](found, history).state == "holds"
    first, (world, described) = joined()
    five = described[0][1]
    assert isinstance(five, Stepped)
    described[0][1] = dataclasses.replace(five, samples=(8, 9))
    verdict = JUDGES["samples_exactly_once"](evidence(first, (world, described)), history)
    assert verdict.details[0] == "rank 0, step 5: saw samples [8, 9], not [10, 11]"


def test_places_of_ranks_under_another_number_of_stages() -> None:
    wide = World(pp=2, dp_shard=2)
    narrow = World(dp_shard=2)
    assert [counterpart(rank, wide, narrow) for rank in range(4)] == [0, 1, 0, 1]
    assert [same_shard(rank, narrow, wide) for rank in range(2)] == [(0, 2), (1, 3)]


def test_a_value_kept_beside_the_model_that_starts_again_is_told() -> None:
    described = event_logs(TWO, None, 4)
    again = event_logs(TWO, 4, 6)
    kept = {"scaler.scale": (2.0).hex()}
    for event_log in (*described, *again):
        event_log[:] = [
            dataclasses.replace(one, beside=kept) if isinstance(one, Stepped | Resumed) else one
            for one in event_log
        ]
    start = again[0][0]
    assert isinstance(start, Resumed)
    again[0][0] = dataclasses.replace(start, beside={"scaler.scale": (1.0).hex()})
    found, _ = changed_run(evidence((TWO, described), (TWO, again)), 1)
    assert any("scaler.scale is 1 (0x1.0000000000000p+0), not 2" in one for one in found)
