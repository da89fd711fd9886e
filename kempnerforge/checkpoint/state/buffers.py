"""Buffers that differ by rank, as checkpoints of format 1 keep them.

In format 1 each rank has a file of its own for them (``ranks/buffers_00003.pt``). Since format 2
they are in the shards (:mod:`rank_values`); the old files are still read, but no longer written.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint.errors import StateMismatchError
from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.model_state import LiveModel, is_extra_state

__all__ = ["match"]


def match(
    model: LiveModel, saved: Mapping[str, torch.Tensor], exclude: Exclusion
) -> dict[str, torch.Tensor]:
    """Selects the saved values that the model has a buffer for, by name; changes nothing.

    Raises:
        StateMismatchError: A buffer has another shape now.
    """
    live = {
        name: value
        for name, value in model.entries.items()
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter | DTensor)
    }
    extra = {name for name in model.entries if is_extra_state(name)}
    taken = live.keys() | extra
    wanted = [name for name in saved if name in taken and not exclude.covers(f"model.{name}")]
    for name in wanted:
        if name not in extra and saved[name].shape != live[name].shape:
            raise StateMismatchError(
                f"model.{name}: the checkpoint has shape {tuple(saved[name].shape)}, the model "
                f"has shape {tuple(live[name].shape)}"
            )
    return {name: saved[name] for name in wanted}
