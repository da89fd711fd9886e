"""Refuses layouts that variants of the model, or optimizers, do not support.

Only what the job itself cannot build, or what no run could be compared in, is refused here. What a
checkpointer makes of the rest is for the judges.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.part import Place
from harness.scenario.schema import Run, Scenario

Finding = tuple[Place, str]

_WITHOUT_TP = {
    "experts": "tensor-parallel peers would each have experts of their own",
    "lora": "the layers that are split have adapters beside them",
    "tied": "each module is spread by itself, which would untie the two",
}
_BY_RANK = {
    "experts": "each rank has experts of its own",
    "low_bit": "each shard of a moment has a scale of its own",
}


def find_impossible_variant(scenario: Scenario) -> Iterator[Finding]:
    """Layouts that a variant cannot have, and freeze settings beside a base that stands still."""
    variant, world = scenario.model.variant, scenario.world
    place: Place = ("model", "variant")
    if world.tp > 1 and variant in _WITHOUT_TP:
        yield place, f"{variant} knows no `tp`: {_WITHOUT_TP[variant]}"
    if world.pp > 1 and variant == "tied":
        yield place, "the two ends of the model are on other stages, so they cannot be tied"
    if scenario.accumulate.save_between and world.pp > 1:
        text = "a pipeline of torch forgets the gradients that it finds before its first pass"
        yield ("accumulate", "save_between"), f"{text}, so none come back: leave it out with `pp`"
    batches = scenario.data.samples // (scenario.data.batch_size * world.degree)
    together = scenario.accumulate.in_a_step
    if together > 1 and batches % together:
        text = f"an epoch of {batches} batches a rank does not end with a step of {together}"
        yield ("accumulate", "batches"), text
    if variant == "lora" and (scenario.freeze.base or scenario.freeze.schedule):
        yield place, "lora says itself what is frozen: leave `freeze` out"


def find_impossible_rearrangement(scenario: Scenario, run: Run, place: Place) -> Iterator[Finding]:
    """Another arrangement of ranks for state that belongs to a rank or to a shard."""
    if run.world is None or run.refused is not None or scenario.world.same_inside(run.world):
        return
    for word in (scenario.model.variant, scenario.optimizer):
        if word in _BY_RANK:
            text = f"{word} does not go on when {scenario.world} becomes {run.world}"
            yield place, f"{text}, because {_BY_RANK[word]}: the run has to be `refused`"
