"""Rank functions for a checkpoint of format 1.

`data/format_1.tar.xz` was written by two ranks of the last version that wrote only that format
(commit 94cfbaf), with the model and the optimizer below: a buffer that differs by rank in files of
its own, extra state flattened into its leaves, containers in the state of a parameter, and entries
of the optimizer besides the standard ones.
"""

import random
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kempnerforge.checkpoint import CheckpointError, CheckpointManager
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.bits import difference, picture


class Remembering(nn.Module):
    """Has a buffer, and extra state that is a dict."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(3))
        self.state: Any = None

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


class Inner(torch.optim.AdamW):
    """Has an entry of its own."""

    inner: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "inner": self.inner}

    def load_state_dict(self, state_dict: Any) -> None:
        self.inner = state_dict["inner"]
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})


def _built(directory: Path) -> tuple[Remembering, Inner, CheckpointManager]:
    model = Remembering()
    optimizer = Inner(model.parameters(), lr=0.1)
    config = CheckpointConfig(dir=str(directory), commit_timeout_s=60.0)
    return model, optimizer, CheckpointManager(config, model, optimizer)


EXTRA_STATE = {"scale": [1.0, 1.0], "h": [[1.0], 3, [1, 2]], "on": None, "deep": {"a": 1}}


def load(rank: int, directory: Path) -> dict[str, Any]:
    """What comes back, as lists and numbers; then it is saved as it is written now, and loaded."""
    model, optimizer, manager = _built(directory)
    step, _, extra = manager.load()
    state = optimizer.state[model.weight]
    found = {
        "step": step,
        "extra": extra,
        "drawn": random.random(),
        "seen": model.seen.tolist(),
        "state": _plain(model.state),
        "moments": {key: _plain(value) for key, value in state.items()},
        "inner": _plain(optimizer.inner),
        "lr": optimizer.param_groups[0]["lr"],
    }
    manager.save(2)
    expected = picture(model, optimizer), model.state, optimizer.inner
    again, other, manager = _built(directory)
    manager.load()
    found["again"] = difference(expected, (picture(again, other), again.state, other.inner))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value


def load_elsewhere(rank: int, directory: Path) -> tuple[str, str, list[float], Any]:
    """The error in another layout, what had changed by then, and what comes without it."""
    model, optimizer, manager = _built(directory)
    before = picture(model, optimizer)
    error = ""
    try:
        manager.load()
    except CheckpointError as caught:
        error = f"{type(caught).__name__}: {caught}"
    changed = difference(before, picture(model, optimizer))
    manager.load(exclude_keys=["optimizer"])
    return error, changed, model.weight.tolist(), _plain(model.state)
