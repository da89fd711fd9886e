"""SGD whose momentum has eight bits, like the moments of low-bit optimizers.

The momentum is a tensor subclass; if the parameter is sharded, it is a distributed tensor whose
local part is one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from harness.jobs.training.optimizers.groups import Groups
from harness.jobs.training.optimizers.packed import Packed, unpacked

_MOMENTUM = 0.9
_FASTER = 30
"""As for SGD."""


class LowBit(Optimizer):
    """Keeps the momentum in eight bits, and the number of steps of each parameter."""

    def __init__(self, groups: Groups, rate: float) -> None:
        lists: list[dict[str, Any]] = [{"params": list(group)} for group in groups]
        super().__init__(lists, {"lr": _FASTER * rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient."""
        del closure
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step(param, group["lr"])

    def _step(self, param: Tensor, rate: float) -> None:
        state = self.state[param]
        if not state:
            state["momentum"] = _like(param, Packed.of(torch.zeros_like(_local(param))))
            state["step"] = torch.zeros(())
        state["step"] += 1
        momentum = _local(state["momentum"])
        assert param.grad is not None, "only parameters with a gradient step"
        momentum.copy_(_MOMENTUM * unpacked(momentum) + _local(param.grad))
        _local(param).sub_(unpacked(momentum), alpha=rate)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _like(param: Tensor, packed: Packed) -> Tensor:
    """Returns the packed tensor, placed like the parameter."""
    if not isinstance(param, DTensor):
        return packed
    return DTensor.from_local(
        packed,
        param.device_mesh,
        param.placements,
        run_check=False,
        shape=param.shape,
        stride=param.stride(),
    )


def build(groups: Groups, rate: float) -> Optimizer:
    """Returns one over all groups."""
    return LowBit(groups, rate)
