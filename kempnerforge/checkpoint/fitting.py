"""Whether a saved value can go into a tensor of the model; asked before anything is changed."""

from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from kempnerforge.checkpoint.errors import StateMismatchError

__all__ = ["require_fitting"]


def require_fitting(key: str, entry: Any, target: torch.Tensor) -> None:
    """Refuse a tensor that cannot take the saved value.

    Args:
        key: Of both, for errors.
        entry: What ``.metadata`` says of the saved value.
        target: Of the model.

    Raises:
        StateMismatchError: It has another shape, or no memory.
    """
    saved = tuple(entry.size) if isinstance(entry, TensorStorageMetadata) else None
    if saved != tuple(target.shape):
        raise StateMismatchError(
            f"{key}: the checkpoint has {'no tensor' if saved is None else f'shape {saved}'}, "
            f"the model has shape {tuple(target.shape)}"
        )
    if target.is_meta:
        raise StateMismatchError(
            f"{key} is on the meta device and has no memory to load into; call "
            "model.to_empty(device=...) before the optimizer is built"
        )
