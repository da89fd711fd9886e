"""Refuses layouts that a variant of the model, or an optimizer, does not support.

Refused here is only what the job itself cannot build, and what could not be compared with any
reference. How a checkpointer copes with the rest is for the judges.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.part import Place
from harness.scenario.schema import Run, Scenario

Finding = tuple[Place, str]

_WITHOUT_TP = {
    "experts": "tensor-parallel peers would each have experts of their own",
    "idle": "the split layers would have a branch beside them",
    "lora": "the split layers would have adapters beside them",
    "tied": "each module is parallelized by itself, which would untie the two",
}
_BY_RANK = {
    "experts": "each rank has experts of its own",
    "low_bit": "each shard of a moment has a scale of its own",
}


def find_impossible_variant(scenario: Scenario) -> Iterator[Finding]:
    """Yields layouts that a variant cannot have, and freeze settings that contradict it."""
    variant, world = scenario.model.variant, scenario.world
    place: Place = ("model", "variant")
    if world.tp > 1 and variant in _WITHOUT_TP:
        yield place, f"{variant} does not support `tp`: {_WITHOUT_TP[variant]}"
    if world.pp > 1 and variant == "tied":
        yield place, "the two ends of the model are on different stages, so they cannot be tied"
    if scenario.accumulate.save_between and world.pp > 1:
        text = "torch's pipeline discards the gradients that it finds before its first pass"
        yield ("accumulate", "save_between"), f"{text}: leave one of `save_between` and `pp` out"
    batches = scenario.data.samples // (scenario.data.batch_size * world.degree)
    together = scenario.accumulate.in_a_step
    if together > 1 and batches % together:
        text = f"an epoch of {batches} batches a rank is not a multiple of the {together} of a step"
        yield ("accumulate", "batches"), text
    if variant == "lora" and (scenario.freeze.base or scenario.freeze.schedule):
        yield place, "lora decides by itself what is frozen: leave `freeze` out"


def find_impossible_rearrangement(scenario: Scenario, run: Run, place: Place) -> Iterator[Finding]:
    """Yields a new arrangement of ranks if some state belongs to a rank or to a shard."""
    if run.world is None or run.refused is not None or scenario.world.same_inside(run.world):
        return
    for word in (scenario.model.variant, scenario.optimizer):
        if word in _BY_RANK:
            text = f"{word} cannot continue when {scenario.world} becomes {run.world}"
            yield place, f"{text}, because {_BY_RANK[word]}: mark the run as `refused`"
