"""Finds what a process has opened of an accelerator: a context does not survive a fork."""

from __future__ import annotations

from pathlib import Path

_OPEN_FILES = Path("/proc/self/fd")
_DEVICES = ("/dev/nvidia", "/dev/kfd")


def open_device(open_files: Path = _OPEN_FILES) -> str | None:
    """Returns an accelerator's device file that is open in this process, or None."""
    for link in open_files.iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if target.startswith(_DEVICES):
            return target
    return None
