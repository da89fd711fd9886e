"""Refuses impossible arrangements of ranks, and impossible changes between two."""

from __future__ import annotations

from collections.abc import Iterator

from harness.part import Place
from harness.scenario.schema import Run, Scenario

Finding = tuple[Place, str]


def as_in_run(scenario: Scenario, run: Run) -> Scenario:
    """Returns the scenario with the settings that a run has of its own."""
    found: dict[str, object] = {}
    if run.data is not None:
        found["data"] = run.data.of(scenario.data)
    if run.learning_rate is not None:
        found["learning_rate"] = run.learning_rate
    if run.world is not None:
        dealt = scenario.data.dealt_to(run.world.degree, before=scenario.world.degree)
        found |= {"world": run.world, "data": dealt}
    if run.model is not None:
        found["model"] = run.model.of(scenario.model)
    if run.freeze is not None:
        found["freeze"] = run.freeze
    if run.scheduler is not None:
        found["scheduler"] = run.scheduler
    return scenario.model_copy(update=found)


def find_impossible_layout(scenario: Scenario) -> Iterator[Finding]:
    """Yields splits that the model or the batch does not allow, and freezing that DDP does not."""
    world, model, batch = scenario.world, scenario.model, scenario.data.batch_size
    if model.heads % world.tp:
        text = f"{model.heads} heads cannot be split among {world.tp} tensor-parallel ranks"
        yield ("model", "heads"), f"{text}; possible: a multiple of {world.tp}"
    if world.schedule != "gpipe" and batch % world.pp:
        text = f"{world.schedule} sends a batch through {world.pp} stages in {world.pp} parts"
        yield ("data", "batch_size"), f"{text}, found {batch}; possible: a multiple of {world.pp}"
    if world.is_ddp and scenario.freeze.schedule:
        text = "DDP fixes its parameters at the start: nothing can be frozen or unfrozen later"
        yield ("freeze", "schedule"), f"{text}; possible: `freeze.base`, or `dp_shard`"


def find_impossible_change(scenario: Scenario, run: Run, place: Place) -> Iterator[Finding]:
    """Yields a change after which no data loader can continue, or no batch can be divided."""
    before, now = scenario.world, run.world
    if now is None or run.refused is not None or before.same_inside(now):
        return
    if not scenario.data.redistributes:
        text = f"no data loader can continue when {before} becomes {now}"
        if before.degree != now.degree:
            ranks = f"{before.degree} data-parallel ranks become {now.degree}"
            text = f"no data loader can continue when {ranks}"
        yield place, f"{text}: mark the run as `refused`, or set `data.redistributes`"
    elif scenario.data.batch_size * before.degree % now.degree:
        total = scenario.data.batch_size * before.degree
        yield (
            place,
            f"the {total} samples of a step cannot be divided evenly among {now.degree} ranks",
        )
