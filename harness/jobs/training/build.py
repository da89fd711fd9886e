"""Builds what trains: model, optimizer, schedule and the pass through them, on one rank."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from harness.evidence.record import StateDigest
from harness.jobs.training.digest import digest_state, named_plainly
from harness.jobs.training.event_log import EventLog
from harness.jobs.training.freeze import FreezeRules
from harness.jobs.training.interrupt import Interruptions
from harness.jobs.training.kept_tensors import KeptTensors, WeightAverage
from harness.jobs.training.models import build_model
from harness.jobs.training.optimizers import build_optimizer
from harness.jobs.training.optimizers.groups import Groups
from harness.jobs.training.parallel import Place
from harness.jobs.training.passes import Pass, PipelinePass, WholePass
from harness.jobs.training.schedule import Schedule
from harness.jobs.training.spread import spread
from harness.jobs.training.variants.experts import rank_local
from harness.plan.model import Workload
from harness.scenario.schema import Accumulation, Model

_RANK_SEED_STRIDE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """All parts of the job on this rank that outlive a step."""

    place: Place
    event_log: EventLog
    interruptions: Interruptions
    rules: FreezeRules
    settings: Model
    model: nn.Module
    """The model that the checkpoint manager gets."""
    net: nn.Module
    """The same parameters, without the wrapper that DDP puts around the whole."""
    optimizer: Optimizer
    schedule: Schedule
    forward_backward: Pass
    accumulate: Accumulation
    kept: KeptTensors
    """Tensors that the loop itself keeps and passes to saves."""
    digest: Callable[[], StateDigest]
    """Describes the current state."""


def seed_rank(seed: int, stream: int) -> None:
    """Seeds each stream differently, so that no two ranks draw the same numbers by mistake."""
    mine = seed + _RANK_SEED_STRIDE * stream
    random.seed(mine)
    np.random.seed(mine % 2**32)
    torch.manual_seed(mine)


def build_rig(
    workload: Workload,
    place: Place,
    rules: FreezeRules,
    *,
    event_log: EventLog,
    interruptions: Interruptions,
) -> Rig:
    """Build everything. Collective over all ranks."""
    parts = place.parts(workload.model.layers)
    built = build_model(
        workload.model,
        workload.data,
        sum(parts[1:], start=parts[0]),
        seed=workload.seed,
        device=place.device,
        rank=place.rank % place.world.stage_size,
    )
    rules.apply(built, 0)
    found = spread(built, place, workload)
    optimizer = build_optimizer(
        workload.optimizer, _groups(found.model, workload), workload.learning_rate
    )
    kept = KeptTensors(
        named=dict(named_plainly(found.net)),
        average=WeightAverage.of(found.net) if workload.ema else None,
        saves_gradients=workload.accumulate.save_between,
    )
    forward_backward: Pass = WholePass(found.model)
    if place.world.pp > 1:
        forward_backward = PipelinePass(found.pieces, place, workload)
    return Rig(
        place=place,
        event_log=event_log,
        interruptions=interruptions,
        rules=rules,
        settings=workload.model,
        model=found.model,
        net=found.net,
        optimizer=optimizer,
        schedule=Schedule(optimizer, workload),
        forward_backward=forward_backward,
        accumulate=workload.accumulate,
        kept=kept,
        digest=partial(digest_state, found.net, optimizer, kept.describe),
    )


def _groups(model: nn.Module, workload: Workload) -> Groups:
    """Returns the optimizer's parameters, with those that are local to this rank in a second group.

    Frozen ones are included: without a gradient they are left alone, and once unfrozen they train.
    Only if a base stays frozen for good is the optimizer given the rest alone.
    """
    alone = {id(param) for _, param in rank_local(model)}
    given = [
        param
        for param in model.parameters()
        if param.requires_grad or workload.model.variant != "lora"
    ]
    shared = tuple(param for param in given if id(param) not in alone)
    own = tuple(param for param in given if id(param) in alone)
    return (shared, own) if own else (shared,)
