"""Compares a run that cannot equal the reference with the run that it continues.

Digests are of the shard that a rank holds of each parameter. If the ranks inside of a stage are
arranged as before, the shards of all stages together are those of the whole model, whatever the
stages. If not, the pieces of all ranks are added up and whole tensors are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.evidence.evidence import Evidence
from harness.evidence.record import Resumed, StateDigest, Stepped
from harness.judge.differences import (
    name_differences,
    number,
    rates,
    settings_differ,
    state_differences,
    values_differ,
)
from harness.judge.event_logs import EventLog, resumed, steps
from harness.judge.lineage import counterpart, parent_of, same_shard
from harness.judge.pieces import piece_differences
from harness.world import World

_LOSS_TOLERANCE = 0.1
"""Relative to the reference's loss; other random draws moved it by up to 4 % in
`scenarios/layouts`."""


def changed_run(evidence: Evidence, run: int) -> tuple[list[str], int]:
    """Returns the differences of each rank, and how many starts and steps were compared."""
    found: list[str] = []
    compared = 0
    for rank, event_log in enumerate(evidence.runs[run].event_logs):
        decision = resumed(event_log)
        if decision is not None:
            compared += 1
            found += [f"rank {rank}, {one}" for one in _at_start(evidence, run, rank, decision)]
        for one in _on_the_way(evidence, run, rank, event_log):
            found.append(f"rank {rank}, {one}")
            break
        compared += len(steps(event_log))
    found += _cut_otherwise(evidence, run)
    found += _together_on_the_way(evidence, run)
    return [*found, *_left_out(evidence, run)], compared


def _at_start(evidence: Evidence, run: int, rank: int, decision: Resumed) -> Iterator[str]:
    here = evidence.plan.workload_of(run).world
    parent = parent_of(evidence, run)
    if decision.step is None:
        wanted: list[Resumed | Stepped | None] = [
            resumed(event_log) for event_log in evidence.reference
        ]
        there, where = evidence.plan.workload.world, "at its fresh start"
    elif parent is not None:
        wanted = [steps(event_log)[decision.step] for event_log in evidence.runs[parent].event_logs]
        there, where = evidence.plan.workload_of(parent).world, f"resumed at step {decision.step}"
    else:
        yield f"resumed at step {decision.step}, which no earlier run has trained"
        return
    differences: list[str] = []
    record = wanted[counterpart(rank, here, there)]
    if here.same_inside(there):
        records = [wanted[other] for other in same_shard(rank, here, there)]
        whole = _whole(one.state for one in records if one is not None)
        differences = _part_differs(decision.state, whole)
        record = records[0]
    same = wanted[rank] if here == there else None
    if same is not None:
        differences = state_differences(decision.state, same.state)
    elif record is not None:
        differences += settings_differ(decision.state, record.state)
    if isinstance(record, Stepped):
        differences += values_differ(decision, record)
    if differences:
        yield f"{where}: {'; '.join(differences)}"


def _whole(states: Iterable[StateDigest]) -> StateDigest:
    """Returns the state that several stages hold together."""
    params: dict[str, str] = {}
    moments: dict[str, str] = {}
    for state in states:
        params.update(state.params)
        moments.update(state.moments)
    return StateDigest(params=params, moments=moments, rng={})


def _part_differs(found: StateDigest, whole: StateDigest) -> list[str]:
    """Returns the differences of a stage from the whole."""
    moments = {
        name: digest
        for name, digest in whole.moments.items()
        if name.rpartition(".")[0] in found.params
    }
    params = {name: digest for name, digest in whole.params.items() if name in found.params}
    return [
        *name_differences("parameter", found.params, params),
        *name_differences("moment", found.moments, moments),
    ]


def _cut_otherwise(evidence: Evidence, run: int) -> Iterator[str]:
    """Yields differences between the loaded state of all ranks and that of the earlier run."""
    parent = parent_of(evidence, run)
    plan = evidence.plan
    if parent is None or plan.workload_of(run).world.same_inside(plan.workload_of(parent).world):
        return
    starts = [resumed(event_log) for event_log in evidence.runs[run].event_logs]
    loaded = [one for one in starts if one is not None and one.step is not None]
    # The property `agreement` covers ranks that resumed from different steps.
    if len(loaded) < len(starts) or len({one.step for one in loaded}) != 1:
        return
    step = loaded[0].step or 0
    trained = [steps(event_log)[step].state for event_log in evidence.runs[parent].event_logs]
    for difference in piece_differences((one.state for one in loaded), trained):
        yield f"all ranks, resumed at step {step}: {difference}"


def _left_out(evidence: Evidence, run: int) -> Iterator[str]:
    """Yields parameters that no stage of this run holds."""
    starts = [resumed(event_log) for event_log in evidence.runs[run].event_logs]
    held = {name for one in starts if one is not None for name in one.state.params}
    known = {
        name
        for event_log in evidence.reference
        for one in [resumed(event_log)]
        if one is not None
        for name in one.state.params
    }
    if all(starts) and known - held:
        yield f"no stage holds parameter {min(known - held)}"


def _on_the_way(evidence: Evidence, run: int, rank: int, event_log: EventLog) -> Iterator[str]:
    """Yields steps at which the schedule or the loss differs from the reference."""
    plan = evidence.plan
    here, there = plan.workload_of(run).world, plan.workload.world
    other = counterpart(rank, here, there)
    expected = steps(evidence.reference[other])
    # The last stage records the loss.
    last = steps(evidence.reference[other % there.stage_size - there.stage_size])
    # With another degree a rank reads other samples; only all ranks together read the same.
    trains_alike = _trains_alike(evidence, run) and here.degree == there.degree
    for step, record in sorted(steps(event_log).items()):
        if step not in expected:
            yield f"step {step}: the uninterrupted run has no such step"
            return
        if record.lr != expected[step].lr:
            yield (
                f"step {step}: learning rate is {rates(record.lr)}, not {rates(expected[step].lr)}"
            )
        if trains_alike and record.loss is not None and _is_far(record.loss, last[step].loss):
            yield (
                f"step {step}: loss is {number(record.loss)}, more than a tenth away from "
                f"{number(last[step].loss)}"
            )


def _trains_alike(evidence: Evidence, run: int) -> bool:
    return evidence.plan.workload_of(run).freeze == evidence.plan.workload.freeze


def _together_on_the_way(evidence: Evidence, run: int) -> Iterator[str]:
    """Yields the first step whose mean loss differs, if ranks cannot be compared one by one."""
    plan = evidence.plan
    here, there = plan.workload_of(run).world, plan.workload.world
    if here.degree == there.degree or not _trains_alike(evidence, run):
        return
    expected = _mean_losses(evidence.reference, there)
    for step, loss in sorted(_mean_losses(evidence.runs[run].event_logs, here).items()):
        if step in expected and _is_far(loss, expected[step]):
            yield (
                f"all ranks, step {step}: mean loss is {number(loss)}, more than a tenth away from "
                f"{number(expected[step])}"
            )
            return


def _mean_losses(event_logs: Sequence[EventLog], world: World) -> dict[int, str]:
    """Returns the mean loss over the batch of each step that all of the last stage finished."""
    finished = [steps(event_log) for event_log in event_logs[-world.stage_size :]]
    complete = set(finished[0]).intersection(*finished[1:]) if finished else set()
    means: dict[int, str] = {}
    for step in complete:
        losses = [float.fromhex(one[step].loss or "nan") for one in finished]
        means[step] = (sum(losses) / len(losses)).hex()
    return means


def _is_far(found: str, wanted: str | None) -> bool:
    if wanted is None:
        return False
    near = float.fromhex(wanted)
    return not abs(float.fromhex(found) - near) <= _LOSS_TOLERANCE * abs(near)
