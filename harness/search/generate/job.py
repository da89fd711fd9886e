"""Draws a job: what is trained on how many ranks, and how it is saved; nothing strikes it yet."""

from __future__ import annotations

from random import Random

from harness.scenario.possible import save_steps
from harness.scenario.schema import (
    Checkpoint,
    Data,
    DynamicWindow,
    Evaluating,
    Freeze,
    FreezePlan,
    Model,
    ModuleName,
    Run,
    Scenario,
    ScheduledFreeze,
    Scheduler,
)
from harness.search.generate.chance import often, pick
from harness.search.generate.forms import draw_form
from harness.world import World

AREAS = (
    "signals", "loop", "storage", "at_rest", "layouts", "pipeline", "freeze", "power", "operator",
    "two_jobs", "forms", "groups",
)  # fmt: skip
"""Areas that can be left out, for implementations that do not promise them."""

_WORLDS = (
    *(
        World(pp=pp, dp_shard=shards)
        for pp, shards in ((1, 2), (1, 1), (2, 1), (2, 2), (1, 3), (1, 4))
    ),
    World(dp_replicate=2),
    World(tp=2),
    World(dp_replicate=2, dp_shard=2),
    World(pp=2, schedule="interleaved"),
)
"""Four ranks are as many as two cores run well."""
_WIDE = (World(dp_shard=5), World(dp_shard=6), World(pp=2, dp_shard=3))
"""Degrees that divide no width; drawn rarely, because they are slow on two cores."""
_TOGETHER = 60
"""Samples of a step of which every degree up to six gets as many."""
_MOST_SAVES = 4
_HANG_TIMEOUT_S = 4.0
"""A hanging operation makes a run this long; it grows if the machine is busy."""
_MODULES: tuple[ModuleName, ...] = ("vision_encoder", "adapter", "transformer")

Areas = frozenset[str]


def draw_job(random: Random, *, without: Areas = frozenset()) -> Scenario:
    """Draws an unstruck scenario of one run. It has at least one save, usually two."""
    world = pick(random, _WIDE if often(random, 4) else _WORLDS)
    if world.pp > 1 and "pipeline" in without:
        world = World(dp_shard=world.dp_shard)
    checkpoint = _draw_checkpoint(random, without)
    until = _draw_end(random, checkpoint)
    freeze = FreezePlan()
    if "freeze" not in without and often(random, 25):
        freeze = _draw_freeze(random, until)
    if freeze.schedule and world.is_ddp:
        world = World(dp_shard=world.degree)
    preset_vlm = freeze != FreezePlan() or often(random, 8)
    job = Scenario(
        name="generated",
        seed=random.randrange(100),
        world=world,
        model=_draw_model(random, vlm=preset_vlm, least=world.pp * world.chunks),
        scheduler=_draw_schedule(random),
        data=_draw_data(random, world, without),
        evaluation=Evaluating(interval=pick(random, (1, 2, 3))) if often(random, 20) else None,
        checkpoint=checkpoint,
        freeze=freeze,
        runs=(Run(until_step=until),),
    )
    return job if "forms" in without else draw_form(random, job)


def _draw_checkpoint(random: Random, without: Areas) -> Checkpoint:
    window = None
    if often(random, 15):
        start = random.randrange(4)
        window = DynamicWindow(start=start, stop=start + pick(random, (2, 4, 8)))
    goes_on = "storage" not in without and often(random, 50)
    hangs = goes_on and often(random, 10)
    return Checkpoint(
        interval=pick(random, (2, 1, 3, 4)),
        keep_last_n=pick(random, (2, 1, 3, 0, -1)),
        async_mode=pick(random, ("disabled", "async", "async_with_pinned_mem")),
        dyn_ckpt_window=window,
        timeout_s=_HANG_TIMEOUT_S if hangs else None,
        on_error="go_on" if goes_on else "end",
        shares_groups="groups" not in without and often(random, 5),
    )


def _draw_end(random: Random, checkpoint: Checkpoint) -> int:
    """Draws the last step: after two to four saves, and a few steps more."""
    saves = random.randrange(2, _MOST_SAVES + 1)
    every = save_steps(checkpoint, after=0, until=checkpoint.interval * saves)
    return every[saves - 1] + random.randrange(checkpoint.interval)


def _draw_model(random: Random, *, vlm: bool, least: int) -> Model:
    return Model(
        preset="tiny_vlm" if vlm else "tiny_transformer",
        layers=max(least, pick(random, (2, 2, 3, 1))),
        dim=pick(random, (32, 32, 16, 40)),
        dropout=pick(random, (0.1, 0.1, 0.0)),
    )


def _draw_data(random: Random, world: World, without: Areas) -> Data:
    """Draws an epoch of few steps, so that many runs cross its end."""
    batch = pick(random, (4, 2, 1))
    redistributes = "layouts" not in without and often(random, 10)
    if redistributes:
        batch = _TOGETHER // world.degree
    if world.schedule != "gpipe":
        batch = max(batch, world.pp)
    steps = random.randrange(2, 12)
    return Data(
        samples=batch * world.degree * steps + random.randrange(batch),
        batch_size=batch,
        num_workers=pick(random, (0, 0, 0, 1, 2)),
        redistributes=redistributes,
    )


def _draw_schedule(random: Random) -> Scheduler:
    """Draws a schedule; torch does not continue all kinds bit for bit when built after the load."""
    late = often(random, 15)
    kinds = ("cosine", "one_cycle") if late else ("cosine", "cosine", "annealing", "one_cycle")
    return Scheduler.model_validate(
        {
            "kind": pick(random, kinds),
            "built": "after_load" if late else "before_load",
            "warmup_steps": pick(random, (2, 2, 0, 5)),
        }
    )


def _draw_freeze(random: Random, until: int) -> FreezePlan:
    """Draws a module that is frozen from the start, or from some step on, or until then."""
    module = pick(random, _MODULES)
    base = (Freeze(module=module),) if often(random, 70) else ()
    schedule: tuple[ScheduledFreeze, ...] = ()
    if not base or often(random, 60):
        moved = Freeze(module=module, frozen=not base)
        schedule = (ScheduledFreeze(start_step=random.randrange(1, until + 1), specs=(moved,)),)
    return FreezePlan(base=base, schedule=schedule)
