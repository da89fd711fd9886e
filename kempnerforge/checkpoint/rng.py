"""The state of every random generator of this process: python, NumPy, torch, each CUDA device.

Saved as numbers, strings and tensors only, so that it is read back without unpickling objects.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kempnerforge.checkpoint.errors import StateMismatchError

__all__ = ["get_rng_state", "require_same_devices", "set_rng_state"]


def get_rng_state() -> dict[str, Any]:
    """Capture all generators of this process; draws from none. Not collective.

    For the thread that trains.

    Returns:
        ``python``, ``numpy``, ``torch`` and ``cuda`` (one state a device, empty where CUDA was not
        used). Differs by rank.
    """
    version, internal, gauss = random.getstate()
    return {
        "python": (version, tuple(internal), gauss),
        "numpy": _get_numpy_state(),
        "torch": torch.get_rng_state(),
        "cuda": _get_cuda_states(),
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore what :func:`get_rng_state` captured; not collective.

    For the thread that trains. Generators that ``state`` lacks stay as they are.

    Raises:
        StateMismatchError: As :func:`require_same_devices`, a ``ValueError``; nothing was changed.
    """
    require_same_devices(state)
    if "python" in state:
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
    if "numpy" in state:
        _set_numpy_state(state["numpy"])
    cpu = state.get("torch", state.get("torch_cpu"))
    if cpu is not None:
        torch.set_rng_state(cpu.cpu())
    _set_cuda_states(_cuda_states(state))


def require_same_devices(state: Mapping[str, Any]) -> None:
    """Refuse a state that :func:`set_rng_state` cannot restore here; changes nothing.

    A machine without CUDA takes any: the generators of its devices are left out.

    Raises:
        StateMismatchError: ``state`` has CUDA generators and this process sees another number of
            devices.
    """
    states = _cuda_states(state)
    if isinstance(states, torch.Tensor) or not states or not torch.cuda.is_available():
        return
    devices = torch.cuda.device_count()
    if len(states) != devices:
        raise StateMismatchError(
            f"the state has generators of {len(states)} CUDA devices, this process sees "
            f"{devices}; make the same devices visible or exclude 'rng' from loading"
        )


def _get_numpy_state() -> dict[str, Any]:
    state: Mapping[str, Any] = np.random.get_state(legacy=False)
    return {
        "bit_generator": str(state["bit_generator"]),
        "state": {name: _plain(value) for name, value in state["state"].items()},
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "values": value.tolist()}
    return int(value)


def _set_numpy_state(state: Any) -> None:
    if not isinstance(state, Mapping):
        # The tuple of NumPy's legacy interface, as other programs store it.
        np.random.set_state(tuple(state))
        return
    restored = dict(state)
    restored["state"] = {
        name: np.array(value["values"], dtype=value["dtype"])
        if isinstance(value, Mapping)
        else value
        for name, value in state["state"].items()
    }
    np.random.set_state(restored)


def _get_cuda_states() -> list[torch.Tensor]:
    initialized: Any = torch.cuda.is_initialized  # has no types
    # Asking whether CUDA is available would start it, and what is forked later could not use it.
    if not initialized():
        return []
    return list(torch.cuda.get_rng_state_all())


def _cuda_states(state: Mapping[str, Any]) -> Any:
    """One state a device, or a single tensor for the current device, as other programs store it."""
    states = state.get("cuda", state.get("torch_cuda"))
    return states if isinstance(states, torch.Tensor) else list(states or ())


def _set_cuda_states(states: Any) -> None:
    if len(states) == 0 or not torch.cuda.is_available():
        return
    if isinstance(states, torch.Tensor):
        torch.cuda.set_rng_state(states.cpu())
    else:
        torch.cuda.set_rng_state_all([state.cpu() for state in states])
