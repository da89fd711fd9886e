"""torch's SGD with momentum: its state begins with the first gradient."""

from __future__ import annotations

from torch.optim import SGD, Optimizer

from harness.jobs.training.optimizers.groups import WEIGHT_DECAY, Groups

_FASTER = 30
"""Momentum alone learns more slowly than Adam at the same rate."""


def build(groups: Groups, rate: float) -> Optimizer:
    """Returns one SGD over all groups."""
    return SGD(
        [{"params": list(group)} for group in groups],
        lr=_FASTER * rate,
        momentum=0.9,
        weight_decay=WEIGHT_DECAY,
    )
