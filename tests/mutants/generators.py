"""Managers that hand back the random generators of somebody else, or in a form nobody reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class GeneratorsOfTheStageBefore(SimpleManager):
    """I02: files are named by the place within a stage, so all stages read those of one."""

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        rank_file = simple_manager._rank_file
        place = dist.get_rank() % dist.get_world_size(self._group)
        simple_manager._rank_file = lambda: f"rank_state_{place}.pt"
        try:
            return super().load(path, *args, **kwargs)
        finally:
            simple_manager._rank_file = rank_file


class NumpyAsItIs(SimpleManager):
    """I06: the state of numpy's generator is saved as an array, which a careful load refuses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        simple_manager._get_generators = _get_generators
        super().__init__(*args, **kwargs)


def _get_generators() -> dict[str, Any]:
    return {"numpy": np.random.get_state(), "torch": torch.get_rng_state()}
