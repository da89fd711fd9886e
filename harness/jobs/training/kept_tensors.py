"""Tensors that the loop keeps beside model and optimizer, and passes to saves as extra values.

An average of the weights, each placed like its parameter, and the gradients that the optimizer has
not taken yet, if a save can fall between two updates. Both change in place from step to step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.jobs.training.digest import named_plainly

_DECAY = 0.8
AVERAGE, GRADIENTS = "ema", "gradients"


@dataclass(slots=True)
class WeightAverage:
    """Follows the weights. It changes with every update."""

    values: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> WeightAverage:
        """Start with the current weights."""
        return cls({name: param.detach().clone() for name, param in named_plainly(model)})

    @torch.no_grad()
    def follow(self, params: Mapping[str, nn.Parameter]) -> None:
        """Update it once."""
        for name, param in params.items():
            self.values[name].lerp_(param.detach(), 1 - _DECAY)


@dataclass(slots=True, kw_only=True)
class KeptTensors:
    """Tensors that the loop keeps, for this rank's parameters by global name."""

    named: dict[str, nn.Parameter]
    average: WeightAverage | None
    saves_gradients: bool

    def updated(self) -> None:
        """Note that the optimizer has stepped."""
        if self.average is not None:
            self.average.follow(self.named)

    def extra(self) -> dict[str, Any]:
        """Returns the extra values for a save: the tensors themselves, which change after it."""
        found: dict[str, Any] = {}
        if self.average is not None:
            found[AVERAGE] = dict(self.average.values)
        if self.saves_gradients:
            found[GRADIENTS] = {
                name: param.grad for name, param in self.named.items() if param.grad is not None
            }
        return found

    def take(self, extra: Mapping[str, Any]) -> None:
        """Take the loaded values; missing ones start anew."""
        if self.average is not None and AVERAGE in extra:
            self.average.values = dict(extra[AVERAGE])
        for name, gradient in extra.get(GRADIENTS, {}).items():
            self.named[name].grad = gradient

    def describe(self) -> Iterator[tuple[str, Tensor]]:
        """Yields all of it, for digests."""
        for name, value in self.average.values.items() if self.average is not None else ():
            yield f"{name}.{AVERAGE}", value
        for name, param in self.named.items() if self.saves_gradients else ():
            if param.grad is not None:
                yield f"{name}.gradient", param.grad
