"""Digests of everything that training depends on, as this rank holds it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from harness.content import tensor_digest
from harness.evidence.record import StateDigest, plain_name
from harness.jobs.training.optimizers import moments_of, settings_of


def named_plainly(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters by their global names."""
    for full_name, param in model.named_parameters():
        yield plain_name(full_name), param


def buffers_plainly(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the buffers by their global names."""
    for full_name, buffer in model.named_buffers():
        yield plain_name(full_name), buffer


def held_plainly(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields parameters and buffers by their global names."""
    yield from named_plainly(model)
    yield from buffers_plainly(model)


Beside = Callable[[], Iterator[tuple[str, Any]]]
"""Values that belong to parameters, by names that begin with theirs and a dot."""


def nothing() -> Iterator[tuple[str, Any]]:
    """Yields no values."""
    yield from ()


def moments(
    model: nn.Module, optimizer: Optimizer, beside: Beside = nothing
) -> Iterator[tuple[str, Any]]:
    """Yields everything that belongs to a parameter and must come back with it, by distinct names.

    That is the optimizer's state for it, including the optimizers inside of that one, and what the
    loop keeps `beside` it.
    """
    for name, param in named_plainly(model):
        for key, value in moments_of(optimizer, param):
            yield f"{name}.{key}", value
    yield from beside()


def digest_state(model: nn.Module, optimizer: Optimizer, beside: Beside = nothing) -> StateDigest:
    """Describes this rank's state: shards by global parameter name, generators, settings."""
    return StateDigest(
        params={name: _digest_value(held) for name, held in held_plainly(model)},
        moments={name: _digest_value(one) for name, one in moments(model, optimizer, beside)},
        rng=_digest_generators(),
        groups={name: _describe(value) for name, value in settings_of(optimizer)},
    )


def local(tensor: Tensor) -> Tensor:
    """Returns the part of a tensor that this rank holds, outside of autograd."""
    with torch.no_grad():
        return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


def inner_tensors(tensor: Tensor) -> dict[str, Tensor] | None:
    """Returns the tensors that a tensor subclass holds, by name; None for a plain tensor."""
    flatten: Any = getattr(tensor, "__tensor_flatten__", None)
    return None if flatten is None else {name: getattr(tensor, name) for name in flatten()[0]}


def _digest_value(value: Any) -> str:
    if not isinstance(value, Tensor):
        return tensor_digest(repr(value).encode())
    held = local(value)
    if type(held) is not Tensor and (inner := inner_tensors(held)) is not None:
        parts = {name: _digest_value(tensor) for name, tensor in inner.items()}
        return tensor_digest(f"{type(held).__name__} {parts}".encode())
    shard = held.cpu().contiguous().reshape(-1)
    # The bytes themselves: numpy has no bfloat16, and -0.0 must differ from 0.0.
    return tensor_digest(shard.view(torch.uint8).numpy())


def _describe(setting: Any) -> str:
    """Returns a setting as text; a list like a tuple, which optimizers do not tell apart."""
    if isinstance(setting, Tensor):
        return f"tensor {_digest_value(setting)}"
    return repr(tuple(setting) if isinstance(setting, list) else setting)


def _digest_generators() -> dict[str, str]:
    numpy_state = np.random.get_state(legacy=False)
    generators = {
        "python": tensor_digest(repr(random.getstate()).encode()),
        "numpy": tensor_digest(_numpy_bytes(numpy_state)),
        "torch": tensor_digest(torch.get_rng_state().numpy()),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            generators[f"cuda:{index}"] = tensor_digest(state.numpy())
    return generators


def _numpy_bytes(state: Any) -> bytes:
    inner = state["state"]
    gauss = f"{state['bit_generator']} {inner['pos']} {state['has_gauss']} {state['gauss']!r}"
    return bytes(inner["key"].tobytes()) + gauss.encode()
