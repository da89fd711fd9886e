"""torch's AdamW."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from harness.jobs.training.optimizers.groups import WEIGHT_DECAY, Groups


class _ShardwiseAdamW(AdamW):
    """AdamW that updates each rank's own shards; its state is sharded like the parameters.

    AdamW is elementwise: the results are those of an update through DTensor, which would first have
    to find out, in every run anew, how the results are sharded.
    """

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        for tensors in lists:
            tensors[:] = [one.to_local() if isinstance(one, DTensor) else one for one in tensors]
        return has_complex


def build(groups: Groups, rate: float) -> Optimizer:
    """Returns one AdamW over all groups."""
    return _ShardwiseAdamW(
        [{"params": list(group)} for group in groups],
        lr=rate,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
