"""Managers that take ranks which were started again in place for the ranks that died.

Each is right where every start of the job is a launch of its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager


def _launch() -> str:
    """What stays the same as long as the agent of these ranks lives."""
    return os.environ.get("TORCHELASTIC_RUN_ID", str(os.getpid()))


def _noted(note: Path, text: str) -> str:
    """What was noted in this launch before; `text`, and a note of it, where nothing was."""
    launch, _, before = note.read_text().partition("\n") if note.exists() else ("", "", "")
    if launch == _launch():
        return before
    note.write_text(f"{_launch()}\n{text}")
    return text


class LocksForTheLaunch(SimpleManager):
    """The lock is held by the launch, so the rank that follows the dead one does not get it."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if dist.get_rank() == 0:
            holder = _noted(Path(config.dir).parent / "holder", str(os.getpid()))
            if holder != str(os.getpid()):
                raise RuntimeError(f"{config.dir} is in use by process {holder}")


class DecidesOncePerLaunch(SimpleManager):
    """Where to resume from is decided when the job is launched, as an argument of it would be."""


def resolve_resume_path(directory: str) -> str | None:
    """Of `DecidesOncePerLaunch`; the other one never gets to ask twice."""
    found = simple_manager.resolve_resume_path(directory)
    note = Path(directory).parent / f"resume{os.environ.get('RANK', '0')}"
    return _noted(note, found or "") or None
