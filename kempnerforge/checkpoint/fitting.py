"""Whether a value of the model can be saved and loaded again; asked before anything is changed."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint.errors import StateMismatchError

__all__ = ["require_fitting", "require_rebuildable"]


def require_fitting(key: str, entry: Any, target: torch.Tensor) -> None:
    """Refuse a tensor that cannot take the saved value.

    Args:
        key: Of both, for errors.
        entry: What ``.metadata`` says of the saved value.
        target: Of the model.

    Raises:
        StateMismatchError: It has another shape, or no memory for each of its elements.
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
    if _shares_memory_within(target):
        raise StateMismatchError(
            f"{key} has elements that share memory, as expand() makes them, and cannot take a "
            "value for each; clone() it when the model is built, or exclude it from loading"
        )


def require_rebuildable(key: str, value: Any, *, within: bool = False) -> None:
    """Refuse extra state that could not be put together again.

    DCP takes dicts apart, and lists with tensors in them, into entries by path.

    Args:
        key: For errors.
        value: What ``get_extra_state`` returned, or a part of it.
        within: Whether it is a part.

    Raises:
        TypeError: A dict has keys that are no strings, or an empty one would leave no entry.
    """
    parts: Any = ()
    if isinstance(value, Mapping):
        if (within and not value) or not all(isinstance(name, str) for name in value):
            raise TypeError(
                f"{key}: extra state with a dict that is empty or has keys that are no strings "
                "cannot be kept as it is; keep it as a tuple, or as bytes"
            )
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    for part in parts:
        require_rebuildable(key, part, within=True)


def _shares_memory_within(target: torch.Tensor) -> bool:
    local = target._local_tensor if isinstance(target, DTensor) else target
    # What copy_ itself asks; 1 stands for yes, 0 for no, 2 for views that are too odd to tell.
    overlap: Any = torch._debug_has_internal_overlap  # has no types
    return bool(overlap(local) == 1)
