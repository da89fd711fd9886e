"""State that passes through hooks: the fused q, k, v of each block is saved as three tensors.

A `state_dict` hook splits it, a `load_state_dict` hook joins it again. So the names in a state dict
are not parameters of the model, and share no memory with one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from harness.jobs.training.variants.variant import Variant, blocks_of
from harness.scenario.training import Model

FUSED = "weight"
PARTS = ("q", "k", "v")


def _part(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:  # noqa: ARG001
    fused = state.pop(prefix + FUSED)
    for name, part in zip(PARTS, fused.detach().chunk(len(PARTS)), strict=True):
        state[prefix + name] = part.clone()


def _join(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ARG001
    if all(prefix + name in state for name in PARTS):
        state[prefix + FUSED] = torch.cat([state.pop(prefix + name) for name in PARTS])


def _change(model: nn.Module, settings: Model) -> None:  # noqa: ARG001
    for block in blocks_of(model):
        qkv: Any = block.get_submodule("qkv")
        qkv.register_state_dict_post_hook(_part)
        qkv.register_load_state_dict_pre_hook(_join)


VARIANT = Variant(change=_change)
