"""Compares a run that cannot equal the reference with the run that it continues.

Digests are of the shard that a rank holds of each parameter. If the ranks inside of a stage are
arranged as before, the shards of all stages together are those of the whole model, whatever the
stages. If not, the pieces of all ranks are added up and whole tensors are compared.

From then on each step is compared with that of a reference which makes the same change from the
state of its own unfaulted run, without any checkpointer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.evidence.descent import parent_of
from harness.evidence.evidence import Evidence
from harness.evidence.record import Resumed, StateDigest, Stepped
from harness.judge.differences import (
    differing_steps,
    name_differences,
    rates,
    settings_differ,
    state_differences,
    values_differ,
)
from harness.judge.event_logs import EventLog, resumed, steps
from harness.judge.lineage import counterpart, same_shard, saved_words
from harness.judge.pieces import piece_differences


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
    return [*found, *_left_out(evidence, run)], compared


def _at_start(evidence: Evidence, run: int, rank: int, decision: Resumed) -> Iterator[str]:
    here = evidence.plan.workload_of(run).world
    parent = parent_of(evidence, run)
    if decision.step is None:
        same = evidence.changed.get(run)
        wanted: list[Resumed | Stepped | None] = [
            resumed(event_log) for event_log in same or evidence.reference
        ]
        there = here if same else evidence.plan.workload.world
        where = "at its fresh start"
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
    alike = wanted[rank] if here == there else None
    if alike is not None:
        differences = state_differences(decision.state, alike.state)
    elif record is not None:
        differences += settings_differ(decision.state, record.state)
    if isinstance(record, Stepped):
        words = saved_words(evidence, run, decision.step or 0)
        differences += values_differ(decision, record, words)
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
    """Yields steps that differ from the reference that makes the same change, if there is one."""
    changed = evidence.changed.get(run)
    if changed is not None and not _reads_otherwise(evidence, run):
        yield from differing_steps(event_log, steps(changed[rank]))
        return
    plan = evidence.plan
    other = counterpart(rank, plan.workload_of(run).world, plan.workload.world)
    expected = steps(evidence.reference[other])
    keeps_schedule = all(one.scheduler is None and one.learning_rate is None for one in plan.runs)
    for step, record in sorted(steps(event_log).items()):
        if step not in expected:
            yield f"step {step}: the uninterrupted run has no such step"
        elif keeps_schedule and record.lr != expected[step].lr:
            wanted = rates(expected[step].lr)
            yield f"step {step}: learning rate is {rates(record.lr)}, not {wanted}"


def not_judged(evidence: Evidence, run: int) -> str | None:
    """Returns what could not be compared after the start of a changed run, and why."""
    what = f"how run {run} trains in its arrangement"
    if (obstacle := evidence.plan.handover_obstacle) is not None:
        return f"{what}: no reference for {obstacle}"
    if not any(steps(event_log) for event_log in evidence.runs[run].event_logs):
        return None
    if run not in evidence.changed:
        return f"{what}: no reference makes the same change"
    if _reads_otherwise(evidence, run):
        return f"{what}: its ranks read other samples than those of a reference"
    return None


def _reads_otherwise(evidence: Evidence, run: int) -> bool:
    """Whether another degree is dealt its samples in another way than by the harness.

    Which rank reads which is up to the checkpointer; the property `samples_exactly_once` covers
    what all of them read together.
    """
    parent, plan = parent_of(evidence, run), evidence.plan
    degree = plan.workload_of(run).world.degree
    if parent is None or plan.workload_of(parent).world.degree == degree:
        return False
    return any(
        record.samples != wanted[step].samples
        for event_log, reference in zip(
            evidence.runs[run].event_logs, evidence.changed.get(run, ()), strict=False
        )
        for wanted in [steps(reference)]
        for step, record in steps(event_log).items()
        if step in wanted
    )
