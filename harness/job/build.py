"""The things that train: model, optimizer, schedule and the pass through them, on one rank."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from harness.evidence.record import StateDigest
from harness.job.digest import digest_state
from harness.job.freeze import FreezeRules
from harness.job.models import build_model
from harness.job.parallel import Place
from harness.job.passes import Pass, PipelinePass, WholePass
from harness.job.spread import spread
from harness.job.story import Story
from harness.plan.model import Workload
from harness.scenario.schema import Model

_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 0.01
_RANK_SEED_STRIDE = 1000
_LEAST_FACTOR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """All parts of the job on this rank that outlive a step."""

    place: Place
    story: Story
    rules: FreezeRules
    settings: Model
    model: nn.Module
    """What the checkpoint manager is given."""
    net: nn.Module
    """The same parameters, without the wrapper that DDP puts around the whole."""
    optimizer: Optimizer
    scheduler: LambdaLR
    forward_backward: Pass
    digest: Callable[[], StateDigest]
    """What there is to say of the state now."""


def seed_rank(seed: int, stream: int) -> None:
    """Every stream has its own numbers, so that none can pass for another."""
    mine = seed + _RANK_SEED_STRIDE * stream
    random.seed(mine)
    np.random.seed(mine % 2**32)
    torch.manual_seed(mine)


def build_rig(workload: Workload, place: Place, rules: FreezeRules, story: Story) -> Rig:
    """Build everything. Collective over all ranks."""
    parts = place.parts(workload.model.layers)
    built = build_model(
        workload.model,
        workload.data,
        sum(parts[1:], start=parts[0]),
        seed=workload.seed,
        device=place.device,
    )
    rules.apply(built, 0)
    found = spread(built, place, workload)
    # Frozen parameters are in it too: without a gradient they are left alone, and once unfrozen
    # they train.
    optimizer = AdamW(
        found.model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True
    )
    forward_backward: Pass = WholePass(found.model)
    if place.world.pp > 1:
        forward_backward = PipelinePass(found.pieces, place, workload)
    return Rig(
        place=place,
        story=story,
        rules=rules,
        settings=workload.model,
        model=found.model,
        net=found.net,
        optimizer=optimizer,
        scheduler=LambdaLR(optimizer, _cosine(workload)),
        forward_backward=forward_backward,
        digest=partial(digest_state, found.net, optimizer),
    )


def _cosine(workload: Workload) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine down to a tenth.

    A function, because `LambdaLR` would save the attributes of an object as state.
    """
    warmup, total = workload.scheduler.warmup_steps, workload.total_steps

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        return _LEAST_FACTOR + (1 - _LEAST_FACTOR) * (1 + math.cos(math.pi * done)) / 2

    return factor
