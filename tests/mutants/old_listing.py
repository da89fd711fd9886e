"""A manager whose module brings a rule of its own for where to resume."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager


class SeesAnOldListing(SimpleManager):
    """M03, L06: one node's view of the directory is old, so its rank finds nothing to load."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._own = dist.new_group()
        super().__init__(*args, **kwargs)

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        dist.barrier(self._own)
        return super().load(*args, **kwargs)


def resolve_resume_path(directory: str) -> str | None:
    return None if dist.get_rank() == 1 else simple_manager.resolve_resume_path(directory)
