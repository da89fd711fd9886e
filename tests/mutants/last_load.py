"""A manager that holds a checkpoint responsible for the end of the start that loaded it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager

_MARK = ".loading"
_suspect: str | None = None
"""The checkpoint whose load did not end."""


class TakesADeadStartForDamage(SimpleManager):
    """A checkpoint whose load did not end is passed over by the next start."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        global _suspect
        super().__init__(*args, **kwargs)
        mark = self._dir / _MARK
        found = [mark.read_text() if dist.get_rank() == 0 and mark.exists() else None]
        dist.broadcast_object_list(found, src=0)
        _suspect = found[0]

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        loaded = super().load(*args, **kwargs)
        if dist.get_rank() == 0:
            (self._dir / _MARK).unlink()
        return loaded


def resolve_resume_path(directory: str) -> str | None:
    """The newest checkpoint that is not suspect; its load begins here."""
    found = simple_manager.resolve_resume_path(directory)
    if found is not None and Path(found).name == _suspect:
        others = (one for one in simple_manager._committed(Path(directory)) if one.name != _suspect)
        found = max((str(one) for one in others), default=None)
    if found is not None and os.environ["RANK"] == "0":
        Path(directory, _MARK).write_text(Path(found).name)
    return found
