"""Gradient clipping over all ranks and stages."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from harness.job.digest import local


def clip_gradients(model: nn.Module, *, max_norm: float) -> int:
    """Scale all gradients so that their norm over all ranks and stages is at most `max_norm`.

    Returns how many parameters of this rank had a gradient that is not zero.
    """
    grads = [local(param.grad) for param in model.parameters() if param.grad is not None]
    device = next(model.parameters()).device
    norms = [torch.linalg.vector_norm(grad) for grad in grads]
    known = torch.stack(norms) if norms else torch.zeros(1, device=device)
    # Every element lies on one rank only, so the squares add up over all of them.
    total = known.square().sum()
    dist.all_reduce(total)
    factor = (max_norm / (total.sqrt() + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor)
    return int(known.count_nonzero())
