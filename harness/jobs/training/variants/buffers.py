"""A bias in each block that is a buffer, as where experts are balanced without a loss.

It changes in place before each step, and no optimizer knows it. It is the same on all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.jobs.training.variants.variant import Origin, Variant, blocks_of
from harness.scenario.training import Model

_DECAY = 0.9
_RATE = 0.01


def _add(block: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    bias: Any = block.bias
    return (given[0] + bias.to(given[0].dtype), *given[1:])


def _change(model: nn.Module, settings: Model) -> None:
    for block in blocks_of(model):
        block.register_buffer("bias", torch.empty(settings.dim))
        block.register_forward_pre_hook(_add)


def _begin(model: nn.Module, origin: Origin) -> None:  # noqa: ARG001
    for buffer in model.buffers():
        buffer.zero_()


@torch.no_grad()
def _before_step(model: nn.Module, step: int) -> None:
    for buffer in model.buffers():
        places = torch.arange(buffer.numel(), device=buffer.device)
        buffer.mul_(_DECAY).add_(torch.sin(places + step), alpha=_RATE)


VARIANT = Variant(change=_change, begin=_begin, before_step=_before_step)
