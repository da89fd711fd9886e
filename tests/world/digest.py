"""The state of a program as names and digests, so that a difference has a name."""

import dataclasses
import hashlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from tests.world.thing import Program

_COMPRESSED_ROWS = ("crow_indices", "col_indices", "values")
_COMPRESSED_COLUMNS = ("ccol_indices", "row_indices", "values")
_SPARSE_PARTS = {
    torch.sparse_coo: ("_indices", "_values"),  # the public ones ask for coalesced tensors
    torch.sparse_csr: _COMPRESSED_ROWS,
    torch.sparse_bsr: _COMPRESSED_ROWS,
    torch.sparse_csc: _COMPRESSED_COLUMNS,
    torch.sparse_bsc: _COMPRESSED_COLUMNS,
}


def state_of(program: Program) -> dict[str, str]:
    """All that has to come back on this rank, bit for bit: name to digest."""
    model = program.model
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    optimizer = (program.watched or program.optimizer.state_dict)()
    everything = {
        "model": tensors,
        "tied": _tied(tensors),
        "optimizer": optimizer,
        "scheduler": program.scheduler.state_dict() if program.scheduler else None,
        "extra": program.extra(),
        "rng": (torch.get_rng_state(), random.getstate(), np.random.get_state()),
    }
    return dict(_leaves(everything, ""))


def _tied(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """Names that stand for one tensor."""
    by_tensor: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        by_tensor.setdefault(id(tensor), []).append(name)
    return sorted(names for names in by_tensor.values() if len(names) > 1)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, torch.Tensor):
        yield from _tensor_leaves(value, path)
    elif isinstance(value, Mapping):
        yield path, f"{type(value).__name__} of {len(value)}"
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key!r}" if path else str(key))
    elif isinstance(value, list | tuple):
        yield path, f"{type(value).__name__} of {len(value)}"
        for position, item in enumerate(value):
            yield from _leaves(item, f"{path}[{position}]")
    elif isinstance(value, np.ndarray):
        yield path, f"{value.dtype}{value.shape} {_digest(value.tobytes())}"
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield path, type(value).__name__
        for entry in dataclasses.fields(value):
            yield from _leaves(getattr(value, entry.name), f"{path}.{entry.name}")
    else:
        yield path, value.hex() if isinstance(value, float) else repr(value)


def _tensor_leaves(value: torch.Tensor, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, torch.nn.Parameter):
        value = value.data
    if isinstance(value, DTensor):
        mesh = tuple(value.device_mesh.shape)
        yield path, f"DTensor{tuple(value.shape)} {value.placements} on {mesh}"
        yield from _tensor_leaves(value.to_local().detach(), f"{path}.local")
    elif hasattr(value, "__tensor_flatten__"):
        inner, context = value.__tensor_flatten__()
        yield path, f"{type(value).__name__} {value.dtype}{tuple(value.shape)} {context!r}"
        for name in inner:
            yield from _tensor_leaves(getattr(value, name), f"{path}.{name}")
    elif value.layout is not torch.strided:
        yield path, f"{value.layout}{tuple(value.shape)} {value.dtype}"
        for name in _SPARSE_PARTS[value.layout]:
            yield from _tensor_leaves(getattr(value, name)(), f"{path}.{name}")
    else:
        form = f"{type(value).__name__} {value.dtype}{tuple(value.shape)} by {value.stride()}"
        yield path, f"{form} {_digest(_bytes(value))}"


def _bytes(value: torch.Tensor) -> bytes:
    if value.is_meta:
        return b""
    if value.is_quantized:
        value = value.int_repr()
    # A new tensor has the strides that a view as bytes asks for, even where it has one element.
    plain = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach()).reshape(-1)
    found: bytes = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
