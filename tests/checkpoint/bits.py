"""Compares models and optimizers bit for bit, and takes snapshots of them."""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.tensor import DTensor


def difference(one: Any, other: Any) -> str:
    """Where two values differ in type, dtype, shape, strides, placement or bits, if they do."""
    if type(one) is not type(other):
        return f"{type(one).__name__} became {type(other).__name__}"
    if isinstance(one, torch.Tensor):
        return _between_tensors(one, other)
    if isinstance(one, dict):
        if {*map(repr, one)} != {*map(repr, other)}:
            return f"keys {list(one)} became {list(other)}"
        return _first((key, difference(one[key], other[key])) for key in one)
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return f"{len(one)} values became {len(other)}"
        return _first(enumerate(map(difference, one, other)))
    if isinstance(one, np.ndarray):
        return difference((one.dtype.str, one.tolist()), (other.dtype.str, other.tolist()))
    return "" if repr(one) == repr(other) else f"{one!r} became {other!r}"


def _first(found: Any) -> str:
    return next((f"{key}: {words}" for key, words in found if words), "")


def _between_tensors(one: torch.Tensor, other: torch.Tensor) -> str:
    if isinstance(one, DTensor):
        assert isinstance(other, DTensor)
        if (one.shape, one.placements) != (other.shape, other.placements):
            return f"{one.placements} became {other.placements}"
        return difference(one._local_tensor, other._local_tensor)
    if hasattr(one, "__tensor_flatten__"):
        (names, context), (_, now) = one.__tensor_flatten__(), other.__tensor_flatten__()  # type: ignore[attr-defined]
        parts = ((name, difference(getattr(one, name), getattr(other, name))) for name in names)
        return difference(repr(context), repr(now)) or _first(parts)
    return difference(_traits(one), _traits(other)) or difference(_numbers(one), _numbers(other))


def _traits(value: torch.Tensor) -> dict[str, Any]:
    strided = value.layout is torch.strided
    return {
        "dtype": value.dtype,
        "shape": tuple(value.shape),
        "layout": value.layout,
        "strides": value.stride() if strided else None,
        "coalesced": value.is_coalesced() if value.layout is torch.sparse_coo else None,
        "scheme": str(value.qscheme()) if value.is_quantized else None,
    }


def _numbers(value: torch.Tensor) -> Any:
    value = value.detach().resolve_conj().resolve_neg()
    if value.layout is torch.sparse_coo:
        return [_numbers(value._indices()), _numbers(value._values())]
    if value.layout is torch.sparse_csr:
        return [
            _numbers(value.crow_indices()),
            _numbers(value.col_indices()),
            _numbers(value.values()),
        ]
    if value.is_quantized:
        return [_numbers(value.int_repr()), _numbers(value.dequantize())]
    if value.is_meta:
        return "meta"
    return value.contiguous().reshape(-1).view(torch.uint8).tolist()


def held_by(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """All that a model, its optimizer and the generator hold now, live."""
    names = {id(param): name for name, param in model.named_parameters()}
    return {
        "parameters": dict(model.named_parameters()),
        "buffers": dict(model.named_buffers()),
        "state": {
            names.get(id(key), str(key)) if isinstance(key, torch.Tensor) else key: dict(value)
            if isinstance(value, dict)
            else value
            for key, value in getattr(optimizer, "state", {}).items()
        },
        "groups": [
            {
                key: [names.get(id(param)) for param in value] if key == "params" else value
                for key, value in group.items()
            }
            for group in getattr(optimizer, "param_groups", ())
        ],
        "generator": torch.get_rng_state(),
    }


def picture(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """A copy of :func:`held_by` that later training leaves alone."""
    with torch.no_grad():
        found: dict[str, Any] = copied(held_by(model, optimizer))
    return found


def copied(value: Any) -> Any:
    """A copy of nested containers and of the tensors in them."""
    if isinstance(value, nn.Parameter):
        return nn.Parameter(copied(value.data), requires_grad=value.requires_grad)
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return copy.deepcopy(value) if value.layout is torch.strided else value.clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copied, value))
    return value
