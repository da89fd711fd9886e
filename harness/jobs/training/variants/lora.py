"""Low-rank adapters: the original model is frozen, and a small part beside it trains.

The optimizer is given only the trained part, as in fine-tuning programs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.jobs.training.variants.variant import Origin, Variant, blocks_of
from harness.scenario.training import Model

_RANK = 4
_ADAPTED = ("qkv", "up")
_TRAINED = ("lora_a", "lora_b")


class Adapted(nn.Module):
    """A linear layer with a low-rank one beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.lora_a = nn.Parameter(torch.empty(_RANK, base.in_features))
        self.lora_b = nn.Parameter(torch.empty(base.out_features, _RANK))

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the sum of both."""
        answer: Tensor = self.base(hidden)
        return answer + hidden @ self.lora_a.T @ self.lora_b.T


def _change(model: nn.Module, settings: Model) -> None:  # noqa: ARG001
    for block in blocks_of(model):
        for name in _ADAPTED:
            base = block.get_submodule(name)
            assert isinstance(base, nn.Linear), f"{name} is linear in every block"
            block.register_module(name, Adapted(base))


def _begin(model: nn.Module, origin: Origin) -> None:  # noqa: ARG001
    for name, param in model.named_parameters():
        param.requires_grad_(name.rpartition(".")[2] in _TRAINED)


VARIANT = Variant(change=_change, begin=_begin)
