"""Refuses a GPU that was touched before the ranks are forked: CUDA does not survive a fork."""

from __future__ import annotations

import torch

from harness.system.accelerators import open_device


def touched() -> str | None:
    """Returns how this process has touched a GPU, or None. Does not touch one itself."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return "CUDA is initialized"
    device = open_device()
    return None if device is None else f"{device} is open"


def refuse_touched() -> None:
    """Raises RuntimeError if processes forked from here could not use a GPU any more."""
    reason = touched()
    if reason is not None:
        raise RuntimeError(f"no GPU may be touched before ranks are forked, and {reason}")
