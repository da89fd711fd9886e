"""Gradient clipping over all ranks and stages."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from harness.jobs.training.digest import local
from harness.jobs.training.variants.experts import rank_local


def count_gradients(model: nn.Module) -> int:
    """Counts the parameters of this rank whose gradient is not zero."""
    grads = [local(param.grad) for param in model.parameters() if param.grad is not None]
    return sum(bool(grad.count_nonzero()) for grad in grads)


def clip_gradients(
    model: nn.Module, group: dist.ProcessGroup | None, *, max_norm: float, stage_size: int
) -> int:
    """Scale all gradients so that their norm over all ranks and stages is at most `max_norm`.

    `group` has all ranks; None is the default group.

    Returns how many parameters of this rank had a gradient that is not zero.
    """
    alone = {id(param) for _, param in rank_local(model)}
    trained = [param for param in model.parameters() if param.grad is not None]
    grads = [local(param.grad) for param in trained if param.grad is not None]
    device = next(model.parameters()).device
    norms = [torch.linalg.vector_norm(grad) for grad in grads]
    known = torch.stack(norms) if norms else torch.zeros(1, device=device)
    # Squares add up over all ranks; an element that several ranks hold counts in equal parts.
    copies = [1 if id(one) in alone else _copies(one, stage_size) for one in trained] or [1]
    total = (known.square() / torch.tensor(copies, device=device)).sum()
    dist.all_reduce(total, group=group)
    factor = (max_norm / (total.sqrt() + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor)
    return int(known.count_nonzero())


def _copies(param: torch.Tensor, stage_size: int) -> int:
    """Counts the ranks that hold each element of a parameter."""
    if not isinstance(param, DTensor):
        return stage_size
    mesh = param.device_mesh
    spread = [mesh.size(axis) for axis, way in enumerate(param.placements) if way.is_shard()]
    return stage_size // math.prod(spread)
