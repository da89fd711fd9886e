"""torch's AdamW."""

from __future__ import annotations

from torch.optim import AdamW, Optimizer

from harness.jobs.training.optimizers.groups import WEIGHT_DECAY, Groups


def build(groups: Groups, rate: float) -> Optimizer:
    """Returns one AdamW over all groups."""
    return AdamW(
        [{"params": list(group)} for group in groups],
        lr=rate,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
