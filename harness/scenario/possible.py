"""Refuses well-formed scenarios that are impossible: ranks, saves and steps that never occur."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.faults.base import Surroundings
from harness.faults.point import Point
from harness.faults.registry import AnyFault
from harness.part import Place
from harness.scenario.between import find_impossible_between
from harness.scenario.commands import find_impossible_command
from harness.scenario.cuts import find_impossible_cuts
from harness.scenario.devices import RANKS_PER_GPU
from harness.scenario.errors import choices
from harness.scenario.hosts import find_impossible_hosts
from harness.scenario.launching import find_impossible_launch
from harness.scenario.layouts import as_in_run, find_impossible_change, find_impossible_layout
from harness.scenario.schema import Checkpoint, Evaluating, Freeze, Run, Scenario
from harness.scenario.settings import find_impossible_schedule, find_impossible_settings
from harness.scenario.variants import (
    find_impossible_rearrangement,
    find_impossible_variant,
)
from harness.world import World

Finding = tuple[Place, str]

MOST_CPU_RANKS = 8
"""Eight warm ranks need 1 GB of memory and start in 0.8 s on two cores; more was not tried."""

_MODULES = {
    "tiny_transformer": ("transformer",),
    "tiny_vlm": ("transformer", "vision_encoder", "adapter"),
}


def find_impossible(scenario: Scenario, *, gpus: int) -> Iterator[Finding]:
    """Yields everything that cannot happen, given the GPUs of this machine."""
    unfit = list(find_impossible_command(scenario))
    if unfit:
        yield from unfit
    elif scenario.job is not None:
        yield from _around_a_command(scenario)
    else:
        yield from _of_the_built_in_job(scenario, gpus)


def _around_a_command(scenario: Scenario) -> Iterator[Finding]:
    for number in range(len(scenario.runs)):
        yield from _run(scenario, number)
    yield from find_impossible_between(scenario)
    yield from find_impossible_cuts(scenario)
    yield from find_impossible_hosts(scenario)
    yield from _explore(scenario)


def _of_the_built_in_job(scenario: Scenario, gpus: int) -> Iterator[Finding]:
    yield from _world(scenario, gpus)
    yield from _model_and_data(scenario)
    yield from find_impossible_layout(scenario)
    yield from find_impossible_variant(scenario)
    yield from find_impossible_schedule(scenario)
    yield from _freeze(scenario)
    for number in range(len(scenario.runs)):
        yield from _run(scenario, number)
        yield from _own_settings(scenario, number, gpus)
    yield from find_impossible_between(scenario)
    yield from find_impossible_cuts(scenario)
    yield from find_impossible_launch(scenario)
    yield from find_impossible_hosts(scenario)
    yield from _expect(scenario)
    yield from _explore(scenario)


def _world(scenario: Scenario, gpus: int) -> Iterator[Finding]:
    world, size = scenario.world, scenario.world.size
    if scenario.device == "cuda":
        most = gpus * RANKS_PER_GPU
        if 0 < most < size:  # without any GPU the scenario is skipped
            text = f"{world} needs {size} ranks, {gpus} GPUs have room for {most}"
            yield ("world",), f"{text}; possible: {_fitting(world, most)}"
    elif size > MOST_CPU_RANKS and not (scenario.device == "auto" and gpus >= size):
        text = f"{world} needs {size} ranks, the CPU has room for {MOST_CPU_RANKS}"
        yield ("world",), f"{text}; possible: {_fitting(world, MOST_CPU_RANKS)}"


def _fitting(world: World, most: int) -> str:
    """Describes the widest sharding that fits beside the other axes."""
    others = {axis: getattr(world, axis) for axis in ("pp", "dp_replicate", "tp")}
    beside = math.prod(others.values())
    axes = ", ".join(f"{axis}: {size}" for axis, size in others.items() if size > 1)
    if beside > most:
        return f"fewer of {axes}"
    return f"dp_shard at most {most // beside}" + (f" with {axes}" if axes else "")


def find_node_problem(world: World, faults: tuple[AnyFault, ...], *, on_cpu: bool) -> str | None:
    """Returns why ranks cannot be spread over nodes, or why there is no link to strike."""
    if world.nodes == 1:
        struck = [one.word for one in faults if one.needs_nodes]
        return f"`{struck[0]}` needs `world.nodes: 2`" if struck else None
    if not on_cpu:
        return "nodes need ranks on the CPU: set `device: cpu`"
    return (
        f"{world.size} ranks cannot be split over two nodes" if world.size % world.nodes else None
    )


def _model_and_data(scenario: Scenario) -> Iterator[Finding]:
    model, data = scenario.model, scenario.data
    if model.dim % model.heads:
        divisors = [str(heads) for heads in range(1, model.dim + 1) if model.dim % heads == 0]
        text = f"dim {model.dim} is not divisible by {model.heads} heads"
        yield ("model", "heads"), f"{text}; possible: {', '.join(divisors)}"
    parts = scenario.world.pp * scenario.world.chunks
    if model.layers < parts:
        text = f"{parts} {'pipeline stages' if scenario.world.chunks == 1 else 'interleaved parts'}"
        yield ("model", "layers"), f"{text} need at least one layer each, found {model.layers}"
    if data.generator == "global" and data.redistributes:
        text = "a loader that redistributes has a generator of its own"
        yield ("data", "generator"), f"{text}: leave `data.redistributes` out"
    share = data.samples // scenario.world.degree
    if data.batch_size > share:
        ranks = scenario.world.degree
        text = f"{data.samples} samples over {ranks} data-parallel ranks are {share} a rank"
        possible = f"samples at least {data.batch_size * ranks}" + (
            f", or batch_size at most {share}" if share else ""
        )
        yield ("data", "batch_size"), f"{text}, less than a batch; possible: {possible}"


def _freeze(scenario: Scenario) -> Iterator[Finding]:
    known = _MODULES[scenario.model.preset]
    last = max(run.until_step for run in scenario.runs)
    base: Place = ("freeze", "base")
    settings = [((*base, n), spec) for n, spec in enumerate(scenario.freeze.base)]
    for number, stage in enumerate(scenario.freeze.schedule):
        place: Place = ("freeze", "schedule", number)
        settings += [((*place, "specs", n), spec) for n, spec in enumerate(stage.specs)]
        if stage.start_step > last:
            text = f"step {stage.start_step} never comes: the runs end at step {last}"
            yield (*place, "start_step"), text
    for place, spec in settings:
        if spec.module not in known:
            text = f"{scenario.model.preset} has no module {spec.module!r}"
            yield (*place, "module"), f"{text}; {choices(spec.module, known)}"
    yield from _all_frozen(scenario, known)


def _all_frozen(scenario: Scenario, known: tuple[str, ...]) -> Iterator[Finding]:
    """Yields a model in which nothing trains: it has no gradient to compute."""
    state = dict.fromkeys(known, False)
    moments: list[tuple[Place, tuple[Freeze, ...]]] = [
        (("freeze", "base"), scenario.freeze.base),
        *(
            (("freeze", "schedule", number), stage.specs)
            for number, stage in enumerate(scenario.freeze.schedule)
        ),
    ]
    for place, specs in moments:
        state.update({spec.module: spec.frozen for spec in specs})
        if all(state[module] for module in known):
            yield place, f"all modules are frozen from here on ({', '.join(known)}): nothing trains"


def _run(scenario: Scenario, number: int) -> Iterator[Finding]:
    run, place = scenario.runs[number], ("runs", number)
    yield from _load_step(scenario, number)
    yield from _beside(scenario, number)
    world, around = scenario.world_of(run), _surroundings(scenario, number)
    for n, fault in enumerate(run.faults):
        inside: Place = (*place, "faults", n)
        rank = getattr(fault.settings, "rank", None)
        yield from _rank(world, (*inside, fault.word, "rank"), rank)
        yield from _rank(world, (*inside, "at", "rank"), fault.at.rank)
        if scenario.job is None:
            yield from _point(scenario.checkpoint, run, (*inside, "at"), fault.at)
            yield from _period(scenario, number, (*inside, "at"), fault.at)
        for below, text in fault.impossible(around):
            yield (*inside, *below), text


def _surroundings(scenario: Scenario, number: int) -> Surroundings:
    run, launcher = scenario.runs[number], scenario.launcher
    again = launcher.first_run(number + 1) != number + 1
    return Surroundings(
        until_step=run.until_step,
        saves=_most_saves(scenario.checkpoint, run),
        goes_on=scenario.checkpoint.on_error == "go_on",
        ranks=scenario.world_of(run).size,
        most_ranks=MOST_CPU_RANKS,
        is_requeued=launcher.kind == "slurm" and again,
        saves_in_background=scenario.checkpoint.async_mode != "disabled",
    )


def _beside(scenario: Scenario, number: int) -> Iterator[Finding]:
    """Yields a second second job, links that do not exist, and an exploration beside either."""
    run, place = scenario.runs[number], ("runs", number, "faults")
    found = [n for n, fault in enumerate(run.faults) if fault.second_host]
    if len(found) > 1:
        yield (*place, found[1]), "a run can start only one second job"
    on_cpu = scenario.device == "cpu"
    problem = find_node_problem(run.world or scenario.world, run.faults, on_cpu=on_cpu)
    if problem is not None:
        yield ("runs", number), problem
    strange = [n for n, one in enumerate(run.faults) if not one.is_beside_others]
    if strange and scenario.explore is not None:
        yield (*place, strange[0]), "an exploration can strike only the operations of a single job"


def _own_settings(scenario: Scenario, number: int, gpus: int) -> Iterator[Finding]:
    """Refuses impossible settings of a single run."""
    run, place = scenario.runs[number], ("runs", number)
    keys = ("world", "model", "freeze", "learning_rate", "scheduler", "data")
    own = {key: value for key in keys if (value := getattr(run, key)) is not None}
    if not own:
        return
    if not number:
        key = next(iter(own))
        yield (*place, key), f"the first run takes its {key} from the scenario: set it at the top"
        return
    changed = as_in_run(scenario, run)
    if run.world is not None:
        found = [
            *_world(changed, gpus),
            *_model_and_data(changed),
            *find_impossible_layout(changed),
            *find_impossible_variant(changed),
        ]
        yield from (((*place, "world"), text) for _, text in found)
        yield from find_impossible_change(scenario, run, (*place, "world"))
        yield from find_impossible_rearrangement(scenario, run, (*place, "world"))
    if run.freeze is not None:
        yield from (((*place, *inside), text) for inside, text in _freeze(changed))
    yield from find_impossible_settings(scenario, number)


def _rank(world: World, place: Place, rank: int | str | None) -> Iterator[Finding]:
    size = world.size
    if isinstance(rank, int) and not 0 <= rank < size:
        text = f"there is no rank {rank} in {world}"
        yield place, f"{text}; possible: {'0' if size == 1 else f'0 to {size - 1}'}"


def _point(checkpoint: Checkpoint, run: Run, place: Place, point: Point) -> Iterator[Finding]:
    first = run.load_step or 0
    if point.step is not None and not first < point.step <= run.until_step:
        text = f"this run never reaches step {point.step}"
        yield (*place, "step"), f"{text}; possible: {first + 1} to {run.until_step}"
    most = _most_saves(checkpoint, run)
    if point.save is not None and point.save > most:
        text = f"this run has no save {point.save}"
        why = f"it ends at step {run.until_step} and saves at most {_times(most)}"
        yield (*place, "save"), f"{text}: {why}"


def _period(scenario: Scenario, number: int, place: Place, point: Point) -> Iterator[Finding]:
    if point.during == "loading" and number == 0:
        yield (*place, "during"), "the first run finds no checkpoint to load"
    if point.during != "evaluation":
        return
    run = scenario.runs[number]
    most = len(evaluation_steps(scenario.evaluation, after=run.load_step or 0, run=run))
    if not most:
        yield (*place, "during"), "this run never evaluates: set `evaluation`"
    elif point.nth > most:
        yield (*place, "nth"), f"this run has no evaluation {point.nth}: it has at most {most}"


def evaluation_steps(evaluation: Evaluating | None, *, after: int, run: Run) -> tuple[int, ...]:
    """Returns the steps of a run after `after` which an evaluation follows."""
    steps = range(after + 1, run.until_step + 1)
    return tuple(step for step in steps if evaluation and evaluation.is_due(step, run.until_step))


def _load_step(scenario: Scenario, number: int) -> Iterator[Finding]:
    step, place = scenario.runs[number].load_step, ("runs", number, "load_step")
    if step is None:
        return
    earlier = scenario.runs[:number]
    if not earlier:
        yield place, "the first run finds no checkpoint to load"
        return
    until = max(run.until_step for run in earlier)
    saved = save_steps(scenario.checkpoint, after=0, until=until)
    shut_down = any(fault.asks_to_end for run in earlier for fault in run.faults)
    if step > until or (step not in saved and not shut_down):
        steps = ", ".join(str(known) for known in saved) or "none"
        yield place, f"no earlier run saves at step {step}; possible: {steps}"


def _expect(scenario: Scenario) -> Iterator[Finding]:
    place, found = ("expect", "resumed_from_step"), scenario.expect.resumed_from_step
    resumes = len(scenario.runs) - 1
    if isinstance(found, tuple) and len(found) != resumes:
        text = f"{len(found)} steps for {resumes} runs after the first"
        yield place, f"{text}: give one step for each of them"
    if isinstance(found, int) and not resumes:
        yield place, "there is only one run, which resumes from nothing"
    expected = found if isinstance(found, tuple) else (found,)
    last = max(run.until_step for run in scenario.runs)
    for step in expected:
        if step is not None and not 0 <= step <= last:
            yield place, f"step {step} is never saved: the runs end at step {last}"


def _explore(scenario: Scenario) -> Iterator[Finding]:
    explore = scenario.explore
    if explore is None:
        return
    runs, place = len(scenario.runs), ("explore",)
    if explore.run >= runs - 1:
        text = f"run {explore.run} is struck, and no run resumes after it"
        yield (*place, "run"), f"{text}: `runs` has {runs}"
    elif any(one.ends_run and not one.asks_to_end for one in scenario.runs[explore.run].faults):
        yield (
            (*place, "run"),
            f"run {explore.run} is already ended by a fault, so it cannot be explored",
        )
    for number, rank in enumerate(explore.ranks):
        world = scenario.world_of(scenario.runs[min(explore.run, runs - 1)])
        yield from _rank(world, (*place, "ranks", number), rank)
    if scenario.expect.resumed_from_step is not None:
        text = "each strike resumes from a different step: leave `resumed_from_step` out"
        yield ("expect", "resumed_from_step"), text


def save_steps(checkpoint: Checkpoint, *, after: int, until: int) -> tuple[int, ...]:
    """Returns the steps in (after, until] at which the training loop asks for a save."""
    window = checkpoint.dyn_ckpt_window
    steps = set(range(checkpoint.interval, until + 1, checkpoint.interval))
    if window is not None and window.start <= window.stop:
        steps.add(window.start)
        reach = 1
        while window.start + reach <= window.stop:
            steps.add(window.start + reach)
            reach *= 2
    return tuple(sorted(step for step in steps if after < step <= until))


def _most_saves(checkpoint: Checkpoint, run: Run) -> int:
    """Returns an upper bound: a later run's first step is unknown, and a SIGTERM adds a save."""
    regular = save_steps(checkpoint, after=run.load_step or 0, until=run.until_step)
    return len(regular) + any(fault.asks_to_end for fault in run.faults)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
