"""The training state besides model and optimizer.

It is kept in ``train_state.pt`` as plain values: numbers, strings, containers, tensors. Reading it
back never runs code from the file.
"""

from collections.abc import Mapping
from typing import Any

from kempnerforge.checkpoint.state.exclusion import Exclusion
from kempnerforge.checkpoint.state.handover import Unmatched
from kempnerforge.checkpoint.state.rng import get_rng_state, set_rng_state

__all__ = [
    "build_train_state",
    "get_rng_state",
    "restore_train_state",
    "set_rng_state",
    "split_extra",
]

RESERVED_KEYS = frozenset({"step", "tokens_seen", "scheduler", "dataloader", "rng"})


def build_train_state(
    step: int,
    tokens_seen: int,
    scheduler: Any | None = None,
    dataloader: Any | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Captures everything but model and optimizer; not collective, draws from no generator.

    To be called by the training thread, whose generators it captures.

    Args:
        step: Current training step.
        tokens_seen: Tokens processed so far.
        scheduler: Anything with ``state_dict()``.
        dataloader: Anything with ``state_dict()``; without it, no position is saved.
        extra: More values; their keys are merged into the result and returned by a load.

    Raises:
        ValueError: ``extra`` uses a reserved key.
        TypeError: The scheduler has no ``state_dict``.
    """
    taken = RESERVED_KEYS & set(extra or ())
    if taken:
        raise ValueError(f"extra must not use the keys {sorted(taken)}; they are reserved")
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
    """Restores what :func:`build_train_state` captured, the generators last; not collective.

    To be called by the training thread. Exceptions from ``load_state_dict`` propagate. Logs a
    warning for a scheduler or loader that only the state or only the caller has.

    Args:
        state: A result of :func:`build_train_state`.
        scheduler: Restored if passed and saved.
        dataloader: Restored if passed, saved, and able to load a state.

    Returns:
        Step, tokens seen, and the extra keys; 0 for a number that ``state`` lacks.

    Raises:
        ValueError: Its generators are for another number of CUDA devices.
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
    """Returns the part of a train state that came from ``extra``."""
    return {key: value for key, value in state.items() if key not in RESERVED_KEYS}
