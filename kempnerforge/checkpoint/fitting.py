"""Whether a value of the model can be saved and loaded again; asked before anything is changed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint.errors import StateMismatchError
from kempnerforge.checkpoint.tensor_kinds import is_dense, take_apart

__all__ = ["require_fitting", "require_same_class", "require_same_layout", "require_same_shape"]


def require_fitting(key: str, entry: Any, target: torch.Tensor) -> None:
    """Refuse a tensor that cannot take the saved value.

    Args:
        key: Of both, for errors.
        entry: What ``.metadata`` says of the saved value.
        target: Of the model.

    Raises:
        StateMismatchError: It has another shape, or no memory for each of its elements.
    """
    if not isinstance(entry, TensorStorageMetadata):
        raise StateMismatchError(f"{key}: the checkpoint has no dense tensor, the model has one")
    require_same_shape(key, entry.size, target)
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


def require_same_shape(key: str, saved: Sequence[int], target: torch.Tensor) -> None:
    """Refuse a tensor of another shape.

    Raises:
        StateMismatchError: The shapes differ.
    """
    if tuple(saved) != tuple(target.shape):
        raise StateMismatchError(
            f"{key}: the checkpoint has shape {tuple(saved)}, the model has shape "
            f"{tuple(target.shape)}"
        )


def require_same_layout(key: str, entry: Any, target: torch.Tensor) -> None:
    """Refuse a tensor whose memory is arranged otherwise than that of the saved one.

    Raises:
        StateMismatchError: One of the two is dense and the other sparse or quantised.
    """
    dense = isinstance(entry, TensorStorageMetadata)
    if dense != is_dense(target):
        kinds = "sparse or quantised", "dense"
        raise StateMismatchError(
            f"{key}: the checkpoint has a {kinds[dense]} tensor, the model a {kinds[not dense]} one"
        )


def require_same_class(key: str, saved: Sequence[Any], target: torch.Tensor) -> None:
    """Refuse a tensor subclass of another class, or with other settings, than was saved.

    Args:
        key: Of both, for errors.
        saved: Module, name and context of its class, and the context in words.
        target: Of the model.

    Raises:
        StateMismatchError: They differ.
    """
    now = take_apart(target)
    then, mine = f"{saved[0]}.{saved[1]}", f"{now.module}.{now.qualname}"
    if (then, saved[3]) != (mine, now.described):
        raise StateMismatchError(
            f"{key}: the checkpoint has a {then} with {saved[3]}, the model a {mine} with "
            f"{now.described}"
        )


def _shares_memory_within(target: torch.Tensor) -> bool:
    local = target._local_tensor if isinstance(target, DTensor) else target
    # What copy_ itself asks; 1 stands for yes, 0 for no, 2 for views that are too odd to tell.
    overlap: Any = torch._debug_has_internal_overlap  # has no types
    return bool(overlap(local) == 1)
