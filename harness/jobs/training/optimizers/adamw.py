"""torch's AdamW."""

from __future__ import annotations

from torch.optim import AdamW, Optimizer

from harness.jobs.training.optimizers.groups import LEARNING_RATE, WEIGHT_DECAY, Groups


def build(groups: Groups) -> Optimizer:
    """Returns one AdamW over all groups."""
    return AdamW(
        [{"params": list(group)} for group in groups],
        lr=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
