"""Checks that a tensor of the model can take its saved value, before anything is changed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint.errors import StateMismatchError
from kempnerforge.checkpoint.state.tensor_kinds import is_dense, take_apart

__all__ = [
    "require_fitting",
    "require_same_class",
    "require_same_layout",
    "require_same_pattern",
    "require_same_shape",
]

_COMPRESSED = frozenset({torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc})


def require_fitting(key: str, entry: Any, target: torch.Tensor) -> None:
    """Refuses a tensor that cannot take the saved value.

    Args:
        key: Name of both, for errors.
        entry: Entry of the saved value in ``.metadata``.
        target: Tensor of the model.

    Raises:
        StateMismatchError: It has another shape, or lacks separate memory for each element.
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
            f"{key} has elements that share memory, as after expand(), and cannot hold a separate "
            "value for each; clone() it when the model is built, or exclude it from loading"
        )


def require_same_shape(key: str, saved: Sequence[int], target: torch.Tensor) -> None:
    """Refuses a tensor of another shape.

    Raises:
        StateMismatchError: The shapes differ.
    """
    if tuple(saved) != tuple(target.shape):
        raise StateMismatchError(
            f"{key}: the checkpoint has shape {tuple(saved)}, the model has shape "
            f"{tuple(target.shape)}"
        )


def require_same_layout(key: str, entry: Any, target: torch.Tensor) -> None:
    """Refuses a tensor whose layout in memory differs from that of the saved one.

    Raises:
        StateMismatchError: One of the two is dense and the other sparse or quantised.
    """
    dense = isinstance(entry, TensorStorageMetadata)
    if dense != is_dense(target):
        kinds = "sparse or quantised", "dense"
        raise StateMismatchError(
            f"{key}: the checkpoint has a {kinds[dense]} tensor, the model a {kinds[not dense]} one"
        )


def require_same_pattern(key: str, saved: torch.Tensor, target: torch.Tensor) -> None:
    """Refuses a sparse tensor that cannot take what was read, although its shape is the same.

    Args:
        key: Name of both, for errors.
        saved: The tensor that was read.
        target: Tensor of the model.

    Raises:
        StateMismatchError: The sparse layouts differ or, in compressed layouts, the numbers of
            elements or the block sizes do.
    """
    then, now = _pattern(saved), _pattern(target)
    if then != now:
        raise StateMismatchError(
            f"{key}: the checkpoint has a tensor of {then}, which cannot be copied into the "
            f"model's tensor of {now}; build the model with one like it, or exclude the key from "
            "loading"
        )


def _pattern(tensor: torch.Tensor) -> str:
    """Describes the properties that must be equal for ``copy_`` between sparse tensors."""
    layout = str(tensor.layout).removeprefix("torch.")
    if tensor.layout not in _COMPRESSED:
        return f"layout {layout}"
    values = tensor.values()
    blocks = f" in blocks of {tuple(values.shape[1:])}" if values.ndim > 1 else ""
    return f"layout {layout} with {values.shape[0]} elements{blocks}"


def require_same_class(key: str, saved: Sequence[Any], target: torch.Tensor) -> None:
    """Refuses a tensor subclass whose class or settings differ from the saved ones.

    Args:
        key: Name of both, for errors.
        saved: Module, name and context of its class, and a description of the context.
        target: Tensor of the model.

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
    # The check that copy_ itself makes: 1 is yes, 0 no, 2 unknown (unusual views).
    overlap: Any = torch._debug_has_internal_overlap  # has no types
    return bool(overlap(local) == 1)
