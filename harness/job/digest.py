"""Digests of everything that training depends on, as this rank holds it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from harness.evidence.record import StateDigest

_DIGEST_BYTES = 8
"""64 bits tell apart the few thousand digests of a run, and keep its records short."""


_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")


def plain_name(name: str) -> str:
    """The global name of a parameter, whatever is wrapped around its block."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def digest_state(model: nn.Module, optimizer: Optimizer) -> StateDigest:
    """The state of this rank: its shards by global parameter name, and its generators."""
    params: dict[str, str] = {}
    moments: dict[str, str] = {}
    for full_name, param in model.named_parameters():
        name = plain_name(full_name)
        params[name] = _digest_value(param)
        state: Mapping[str, Any] = optimizer.state.get(param, {})
        for key, value in state.items():
            moments[f"{name}.{key}"] = _digest_value(value)
    return StateDigest(params=params, moments=moments, rng=_digest_generators())


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds, outside of autograd."""
    with torch.no_grad():
        return tensor.to_local().detach() if isinstance(tensor, DTensor) else tensor.detach()


def _digest_value(value: Any) -> str:
    if not isinstance(value, Tensor):
        return _digest_bytes(repr(value).encode())
    shard = local(value).cpu().contiguous().reshape(-1)
    # The bytes themselves: numpy has no bfloat16, and -0.0 must differ from 0.0.
    return _digest_bytes(shard.view(torch.uint8).numpy())


def _digest_generators() -> dict[str, str]:
    numpy_state = np.random.get_state(legacy=False)
    generators = {
        "python": _digest_bytes(repr(random.getstate()).encode()),
        "numpy": _digest_bytes(_numpy_bytes(numpy_state)),
        "torch": _digest_bytes(torch.get_rng_state().numpy()),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            generators[f"cuda:{index}"] = _digest_bytes(state.numpy())
    return generators


def _numpy_bytes(state: Any) -> bytes:
    inner = state["state"]
    gauss = f"{state['bit_generator']} {inner['pos']} {state['has_gauss']} {state['gauss']!r}"
    return bytes(inner["key"].tobytes()) + gauss.encode()


def _digest_bytes(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
