"""Proposes scenarios with fewer runs, events, ranks and steps; these save most."""

from __future__ import annotations

from collections.abc import Iterator

from harness.faults.base import AnyRank
from harness.faults.registry import AnyFault
from harness.scenario.schema import Run, Scenario
from harness.search.shrink.change import faults_of, inside, map_steps, with_fault, with_run
from harness.world import World

_OWN = {
    "before": (), "world": None, "model": None, "freeze": None, "learning_rate": None,
    "scheduler": None, "data": None, "load_step": None, "refused": None
}  # fmt: skip


def fewer_runs(scenario: Scenario) -> Iterator[Scenario]:
    """Yields the first runs alone, then all but one."""
    runs = scenario.runs
    for number in range(1, len(runs)):
        yield scenario.model_copy(update={"runs": runs[:number]})
    for number in range(len(runs)):
        left = (*runs[:number], *runs[number + 1 :])
        if left:
            # Nothing can happen before the first run, and its settings are the scenario's.
            first = left[0].model_copy(update={**_OWN, "ignore_freeze_mismatch": False})
            yield scenario.model_copy(update={"runs": (first, *left[1:])})


def fewer_happenings(scenario: Scenario) -> Iterator[Scenario]:
    """Yields a run without its faults or actions, without one of them, without its settings."""
    for number, run in enumerate(scenario.runs):
        if run.faults:
            yield with_run(scenario, number, faults=())
        if run.before:
            yield with_run(scenario, number, before=())
        if len(run.faults) > 1:
            for place in range(len(run.faults)):
                left = (*run.faults[:place], *run.faults[place + 1 :])
                yield with_run(scenario, number, faults=left)
        if len(run.before) > 1:
            for place in range(len(run.before)):
                actions = (*run.before[:place], *run.before[place + 1 :])
                yield with_run(scenario, number, before=actions)
        yield from _usual_settings(scenario, number, run)


def _usual_settings(scenario: Scenario, number: int, run: Run) -> Iterator[Scenario]:
    usual = Run(until_step=run.until_step)
    for key in ("ignore_freeze_mismatch", *(one for one in _OWN if one != "before")):
        if getattr(run, key) != getattr(usual, key):
            yield with_run(scenario, number, **{key: getattr(usual, key)})
    if run.world is not None and run.refused is not None:
        yield with_run(scenario, number, world=None, refused=None)
    if run.freeze is not None and run.refused is not None:
        yield with_run(scenario, number, freeze=None, refused=None)


def fewer_ranks(scenario: Scenario) -> Iterator[Scenario]:
    """Yields smaller worlds; faults on a rank that is gone move to the last one."""
    now = scenario.world
    worlds = [
        World(pp=pp, dp_shard=shards, nodes=nodes)
        for pp in (1, 2)
        for shards in range(1, now.size)
        for nodes in dict.fromkeys((1, now.nodes))
    ]
    worlds += [now.model_copy(update={axis: 1}) for axis in ("dp_replicate", "dp_shard", "tp")]
    if now.schedule != "gpipe":
        yield scenario.model_copy(update={"world": now.model_copy(update={"schedule": "gpipe"})})
    if now.nodes > 1:
        yield scenario.model_copy(update={"world": now.model_copy(update={"nodes": 1})})
    for world in sorted(dict.fromkeys(worlds), key=_simple):
        if _simple(world)[:-1] < _simple(now)[:-1]:
            smaller = scenario.model_copy(update={"world": world})
            for number, place, fault in faults_of(smaller):
                most = (smaller.runs[number].world or world).size - 1
                smaller = with_fault(smaller, number, place, _within(fault, most))
            yield smaller


def _simple(world: World) -> tuple[int, ...]:
    """Prefers fewer ranks, then fewer stages and no axes but shards; nodes are tried above."""
    return (world.size, world.pp, world.tp, world.dp_replicate, world.nodes)


def _within(fault: AnyFault, most: int) -> AnyFault:
    kind = fault.word
    target: AnyRank | None = getattr(getattr(fault, kind), "rank", None)
    named = fault.at.rank
    changed = fault
    if isinstance(target, int) and target > most:
        changed = inside(changed, kind, rank=most)
    if named is not None and named > most:
        changed = inside(changed, "at", rank=most)
    return changed


def fewer_steps(scenario: Scenario) -> Iterator[Scenario]:
    """Yields saves closer together, everything earlier, and runs that end earlier."""
    interval = scenario.checkpoint.interval
    for closer in sorted({1, 2} - set(range(interval, 3))):
        yield _closer(scenario, interval, closer)
    if interval == 1:
        yield _closer(scenario, 1, 2)  # fewer settings, because it is the default
    last = max(run.until_step for run in scenario.runs)
    for saves in sorted({last // interval // 2, 1}, reverse=True):
        if 0 < saves * interval < last:
            yield _earlier(scenario, saves)
    for number, run in enumerate(scenario.runs):
        # A start that ends before the previous one did would puzzle the reader.
        least = max((one.until_step for one in scenario.runs[:number]), default=1)
        for until in _lower(run.until_step, least):
            yield with_run(scenario, number, until_step=until)


def _closer(scenario: Scenario, old: int, new: int) -> Scenario:
    scaled = map_steps(scenario, lambda step: -(-step * new // old))
    checkpoint = scaled.checkpoint.model_copy(update={"interval": new})
    return scaled.model_copy(update={"checkpoint": checkpoint})


def _earlier(scenario: Scenario, saves: int) -> Scenario:
    """Drops the first saves: they are counted from 1 in the first run."""
    by = saves * scenario.checkpoint.interval
    moved = map_steps(scenario, lambda step: max(1, step - by))
    for number, place, fault in faults_of(moved):
        if not number and fault.at.save is not None:
            fewer = inside(fault, "at", save=max(1, fault.at.save - saves))
            moved = with_fault(moved, number, place, fewer)
    return moved


def _lower(number: int, least: int) -> Iterator[int]:
    """Yields smaller numbers, the boldest first."""
    yield from sorted(
        {least, (number + least) // 2, number - 2, number - 1} & set(range(least, number))
    )
