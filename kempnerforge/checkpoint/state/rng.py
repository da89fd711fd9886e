"""The state of every random generator of this process: python, NumPy, torch, each CUDA device.

It is saved as numbers, strings and tensors only, so that reading it unpickles no objects, and in a
form that each package's own setter accepts, because some training loops read it themselves.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kempnerforge.checkpoint.errors import StateMismatchError

__all__ = ["CUDA_KEYS", "get_rng_state", "require_same_devices", "set_rng_state"]

CUDA_KEYS = ("torch_cuda", "cuda")
_CPU_KEYS = ("torch_cpu", "torch")


def get_rng_state() -> dict[str, Any]:
    """Captures the state of all generators of this process; draws from none. Not collective.

    To be called by the training thread. The result differs by rank.

    Returns:
        ``python`` for ``random.setstate``, ``numpy`` for ``numpy.random.set_state``, ``torch_cpu``
        for ``torch.set_rng_state`` and ``torch_cuda`` for ``torch.cuda.set_rng_state_all`` (one
        state per device, empty if CUDA was not used). ``torch`` and ``cuda`` are earlier names of
        the last two: the same objects, which a file stores once.
    """
    version, internal, gauss = random.getstate()
    cpu, cuda = torch.get_rng_state(), _get_cuda_states()
    return {
        "python": (version, tuple(internal), gauss),
        "numpy": _get_numpy_state(),
        **dict.fromkeys(_CPU_KEYS, cpu),
        **dict.fromkeys(CUDA_KEYS, cuda),
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restores what :func:`get_rng_state` captured; not collective.

    To be called by the training thread. Generators that ``state`` lacks stay unchanged.

    Raises:
        StateMismatchError: See :func:`require_same_devices`; a ``ValueError``. Nothing was changed.
    """
    require_same_devices(state)
    if "python" in state:
        version, internal, gauss = state["python"]
        random.setstate((version, tuple(internal), gauss))
    if "numpy" in state:
        _set_numpy_state(state["numpy"])
    cpu = _first_of(_CPU_KEYS, state)
    if cpu is not None:
        torch.set_rng_state(cpu.cpu())
    _set_cuda_states(_cuda_states(state))


def require_same_devices(state: Mapping[str, Any]) -> None:
    """Refuses a state that :func:`set_rng_state` cannot restore here; changes nothing.

    A machine without CUDA accepts any state: CUDA generators are ignored.

    Raises:
        StateMismatchError: ``state`` has CUDA generators, and this process sees another number of
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


def _first_of(keys: tuple[str, ...], state: Mapping[str, Any]) -> Any:
    return next((state[key] for key in keys if state.get(key) is not None), None)


def _get_numpy_state() -> Any:
    state = _plain(np.random.get_state(legacy=False))
    if state["bit_generator"] != "MT19937":
        return state
    # NumPy's own tuple, with a list in place of the array of words.
    words, position = state["state"]["key"], state["state"]["pos"]
    return (state["bit_generator"], words, position, state["has_gauss"], state["gauss"])


def _plain(value: Any) -> Any:
    """Converts arrays to lists, and NumPy's numbers to Python's."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _set_numpy_state(state: Any) -> None:
    np.random.set_state(_arrays(state) if isinstance(state, Mapping) else tuple(state))


def _arrays(value: Any) -> Any:
    """Reverses :func:`_plain`; also accepts the form in which early versions saved arrays."""
    if not isinstance(value, Mapping):
        return np.array(value, dtype=np.uint64) if isinstance(value, list) else value
    if value.keys() == {"dtype", "values"}:
        return np.array(value["values"], dtype=value["dtype"])
    return {name: _arrays(inner) for name, inner in value.items()}


def _get_cuda_states() -> list[torch.Tensor]:
    initialized: Any = torch.cuda.is_initialized  # has no types
    # Asking whether CUDA is available would initialise it, and then forked children cannot use it.
    if not initialized():
        return []
    return list(torch.cuda.get_rng_state_all())


def _cuda_states(state: Mapping[str, Any]) -> Any:
    """Returns one state per device, or (from other programs) one tensor for the current device."""
    states = _first_of(CUDA_KEYS, state)
    return states if isinstance(states, torch.Tensor) else list(states or ())


def _set_cuda_states(states: Any) -> None:
    if len(states) == 0 or not torch.cuda.is_available():
        return
    if isinstance(states, torch.Tensor):
        torch.cuda.set_rng_state(states.cpu())
    else:
        torch.cuda.set_rng_state_all([state.cpu() for state in states])
