"""The state of all random generators of a rank."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def get_generators() -> dict[str, Any]:
    """Returns the state of all generators of this rank."""
    has_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if has_cuda else [],
    }


def set_generators(state: dict[str, Any]) -> None:
    """Set all generators of this rank to an earlier state."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
