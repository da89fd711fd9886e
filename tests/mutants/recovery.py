"""A manager that cannot start from what a crash left: only a kill at the right operation tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class ChokesOnAnEmptyDescription(SimpleManager):
    """M01: a start reads the description of every leftover, and one that is still empty ends it."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        for leftover in Path(config.dir).glob(".staging-*/metadata.json"):
            if leftover.stat().st_size == 0:
                raise ValueError(f"{leftover.name} is empty")
        # Rank 0 clears the leftovers away, and another rank may still be looking at them.
        dist.barrier()
        super().__init__(config, *args, **kwargs)
