"""The head has the weights of the embedding: one parameter under two names."""

from __future__ import annotations

from typing import Any

from torch import nn

from harness.jobs.training.variants.variant import Origin, Variant


def _begin(model: nn.Module, origin: Origin) -> None:  # noqa: ARG001
    transformer: Any = model.get_submodule("transformer")
    transformer.head.weight = transformer.embed.weight


VARIANT = Variant(begin=_begin)
