"""Assembly of the training state that is not model or optimizer.

Kept in ``train_state.pt`` as plain values: numbers, strings, containers, tensors. Reading it back
never runs code from the file.
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
