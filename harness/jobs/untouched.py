"""Refuses a GPU that was touched before the ranks are forked: CUDA does not survive a fork."""

from __future__ import annotations

from pathlib import Path

import torch

_OPEN_FILES = Path("/proc/self/fd")
_DEVICES = "/dev/nvidia"


def touched(open_files: Path = _OPEN_FILES) -> str | None:
    """Returns how this process has touched a GPU, or None. Does not touch one itself."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return "CUDA is initialized"
    for link in open_files.iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if target.startswith(_DEVICES):
            return f"{target} is open"
    return None


def refuse_touched() -> None:
    """Raises RuntimeError if processes forked from here could not use a GPU any more."""
    reason = touched()
    if reason is not None:
        raise RuntimeError(f"no GPU may be touched before ranks are forked, and {reason}")
