"""Whether a value of the model can be saved and loaded again; asked before anything is changed."""

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


def require_same_pattern(key: str, saved: torch.Tensor, target: torch.Tensor) -> None:
    """Refuse a sparse tensor that cannot take what was read, though its shape is the same.

    Args:
        key: Of both, for errors.
        saved: As it was read.
        target: Of the model.

    Raises:
        StateMismatchError: They are of different sparse layouts, or compressed and of another
            number of elements, or of blocks of another size.
    """
    then, now = _pattern(saved), _pattern(target)
    if then != now:
        raise StateMismatchError(
            f"{key}: the checkpoint has a tensor of {then}, the model one of {now}, into which it "
            "cannot be copied; build the model with one like it, or exclude the key from loading"
        )


def _pattern(tensor: torch.Tensor) -> str:
    """The layout that ``copy_`` between sparse tensors requires to be equal, in words."""
    layout = str(tensor.layout).removeprefix("torch.")
    if tensor.layout not in _COMPRESSED:
        return f"layout {layout}"
    values = tensor.values()
    blocks = f" in blocks of {tuple(values.shape[1:])}" if values.ndim > 1 else ""
    return f"layout {layout} with {values.shape[0]} elements{blocks}"


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
