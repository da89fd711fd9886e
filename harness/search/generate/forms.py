"""Draws the form of a job's state: variants, optimizers, gradients, averages, a loader.

Most jobs keep the plain one. Every form comes back in the arrangement of ranks in which it was
saved; whether another arrangement can take it, or must refuse it, depends on the form.
"""

from __future__ import annotations

from random import Random
from typing import Any

from harness.scenario.schema import Accumulation, FreezePlan, Scenario
from harness.search.generate.chance import often, pick
from harness.words import OPTIMIZERS, VARIANTS
from harness.world import World

_PLAIN_OPTIMIZERS = ("adamw", "sgd")


def draw_form(random: Random, job: Scenario) -> Scenario:
    """Returns the job, sometimes with its state in another form."""
    changes: dict[str, Any] = {}
    if often(random, 25):
        variant = pick(random, _variants(job.world, job.freeze))
        changes["model"] = job.model.model_copy(update={"variant": variant})
    if often(random, 30):
        changes["optimizer"] = pick(random, OPTIMIZERS[1:])
    if often(random, 15) and not job.data.redistributes:
        changes["data"] = job.data.model_copy(update={"generator": "global"})
    # A loop's extra values are the same on all stages, except for these.
    if job.world.pp == 1 and often(random, 10):
        changes["ema"] = True
    if often(random, 15):
        changes |= _accumulating(random, job, changes)
    return job.model_copy(update=changes)


def is_plain(job: Scenario) -> bool:
    """Whether any checkpointer for the documented layouts must carry it over to another one."""
    between = job.accumulate.save_between or job.ema or job.data.generator == "global"
    return job.model.variant == "plain" and job.optimizer in _PLAIN_OPTIMIZERS and not between


def _variants(world: World, freeze: FreezePlan) -> tuple[str, ...]:
    left_out: set[str] = {"plain"}
    if world.tp > 1:
        left_out |= {"experts", "idle", "lora", "tied"}
    if world.pp > 1:
        left_out.add("tied")
    if freeze != FreezePlan():
        left_out.add("lora")
    return tuple(one for one in VARIANTS if one not in left_out)


def _accumulating(random: Random, job: Scenario, changes: dict[str, Any]) -> dict[str, Any]:
    """Draws several batches per update. An epoch has room for whole steps of them."""
    batches = pick(random, (2, 3))
    between = job.world.pp == 1 and often(random, 50)
    found: dict[str, Any] = {"accumulate": Accumulation(batches=batches, save_between=between)}
    data = changes.get("data", job.data)
    in_epoch = data.samples // (data.batch_size * job.world.degree)
    if not between and in_epoch % batches:
        more = (batches - in_epoch % batches) * data.batch_size * job.world.degree
        found["data"] = data.model_copy(update={"samples": data.samples + more})
    return found
