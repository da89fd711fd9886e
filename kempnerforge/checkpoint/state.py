"""Assembly of the training state that is not model or optimizer.

Kept in ``train_state.pt`` as plain values: numbers, strings, containers, tensors. Reading it back
never runs code from the file.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kempnerforge.checkpoint.errors import CorruptCheckpointError, UnsafeCheckpointError
from kempnerforge.checkpoint.exclusion import Exclusion
from kempnerforge.checkpoint.handover import Unmatched
from kempnerforge.checkpoint.plain_values import read_plain_values
from kempnerforge.checkpoint.rng import get_rng_state, set_rng_state

__all__ = [
    "build_train_state",
    "decode_plain",
    "encode_plain",
    "get_rng_state",
    "restore_train_state",
    "set_rng_state",
    "split_extra",
]

RESERVED_KEYS = frozenset({"step", "tokens_seen", "scheduler", "dataloader", "rng"})


def _numpy_rebuilders() -> dict[str, Any]:
    """The two functions that a pickled array and a pickled scalar call, as this NumPy has them."""
    return {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}


# What NumPy arrays and scalars consist of when they are pickled, by every name that NumPy 1 and 2
# use for it. Checkpoints of other programs hold a NumPy generator state in this form.
_NUMPY_GLOBALS: list[Any] = [
    np.ndarray,
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefdFD"),
    *(
        (function, f"{module}.multiarray.{name}")
        for name, function in _numpy_rebuilders().items()
        for module in ("numpy.core", "numpy._core")
    ),
]


def build_train_state(
    step: int,
    tokens_seen: int,
    scheduler: Any | None = None,
    dataloader: Any | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Capture everything but model and optimizer; not collective, draws from no generator.

    For the thread that trains: the generators are those of the process.

    Args:
        step: Current training step.
        tokens_seen: Tokens processed so far.
        scheduler: Anything with ``state_dict()``.
        dataloader: Anything with ``state_dict()``; one without has no position to save.
        extra: More values; their keys are merged into the result and come back from a load.

    Raises:
        ValueError: ``extra`` uses a key that the state itself uses.
        TypeError: The scheduler has no ``state_dict``.
    """
    taken = RESERVED_KEYS & set(extra or ())
    if taken:
        raise ValueError(f"extra must not use the keys {sorted(taken)}; they are the state's own")
    state: dict[str, Any] = {"step": step, "tokens_seen": tokens_seen, **(extra or {})}
    if scheduler is not None:
        if not hasattr(scheduler, "state_dict"):
            raise TypeError(
                f"the scheduler ({type(scheduler).__name__}) has no state_dict, so it could not be "
                "restored; give it one, or save what it needs in extra"
            )
        state["scheduler"] = scheduler.state_dict()
    if dataloader is not None and hasattr(dataloader, "state_dict"):
        state["dataloader"] = dataloader.state_dict()
    state["rng"] = get_rng_state()
    return state


def restore_train_state(
    state: Mapping[str, Any], scheduler: Any | None = None, dataloader: Any | None = None
) -> tuple[int, int, dict[str, Any]]:
    """Restore what :func:`build_train_state` captured, the generators last; not collective.

    For the thread that trains. What ``load_state_dict`` raises is passed on. A scheduler or loader
    that only one of the two sides has is warned of.

    Args:
        state: As :func:`build_train_state` returned it.
        scheduler: Restored if given and saved.
        dataloader: Restored if given, saved and able to.

    Returns:
        Step, tokens seen, and the extra keys; 0 for a number that ``state`` lacks.

    Raises:
        ValueError: Its generators are of another number of CUDA devices.
    """
    if scheduler is not None and "scheduler" in state:
        scheduler.load_state_dict(state["scheduler"])
    loads = dataloader is not None and hasattr(dataloader, "load_state_dict")
    if dataloader is not None and loads and "dataloader" in state:
        dataloader.load_state_dict(state["dataloader"])
    given = {"scheduler": scheduler, "dataloader": dataloader}
    Unmatched.of(state, given, Exclusion(), pending=not loads).say("the train state")
    if "rng" in state:
        set_rng_state(state["rng"])
    return int(state.get("step", 0)), int(state.get("tokens_seen", 0)), split_extra(state)


def split_extra(state: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a train state that came from ``extra``."""
    return {key: value for key, value in state.items() if key not in RESERVED_KEYS}


def encode_plain(value: Any, *, what: str) -> bytes:
    """Serialise, and make sure that it can be read back without unpickling objects.

    Raises:
        TypeError: ``value`` holds something that a load would refuse.
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    data = buffer.getvalue()
    try:
        decode_plain(data, where=what)
    except UnsafeCheckpointError as error:
        raise TypeError(
            f"{what} holds an object that loading will not rebuild; store numbers, strings, "
            f"lists, dicts and tensors instead ({error})"
        ) from error
    return data


def decode_plain(data: bytes, *, where: str) -> Any:
    """Read what :func:`encode_plain`, or plain ``torch.save``, wrote; tensors come on the CPU.

    Raises:
        UnsafeCheckpointError: The data asks for a class or a function that is not allowed.
        CorruptCheckpointError: The data is not such a file.
    """
    plain = read_plain_values(data)
    if plain is not None:
        return plain[0]
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(
            f"{where}: refused to rebuild objects from it: {_reason(error)}", path=where
        ) from error
    except Exception as error:  # a damaged pickle raises almost anything; it becomes our error
        raise CorruptCheckpointError(f"{where}: cannot be read: {error}", path=where) from error


def _reason(error: Exception) -> str:
    """The part of torch's long message that names what was asked for."""
    for line in str(error).splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip()
    return str(error).splitlines()[0]
