"""Managers whose ranks do not do the same, and wait for each other."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class GathersOnRankZero(SimpleManager):
    """F04: what all ranks have to call together stands below `if rank == 0`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._own = dist.new_group()
        super().__init__(*args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        if dist.get_rank() == 0:
            dist.barrier(self._own)
        super().save(*args, **kwargs)


class OverlapsSaves(SimpleManager):
    """E07: weights and moments are two saves at once, and which begins first is up to each rank."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._parts = (dist.new_group(), dist.new_group())
        super().__init__(*args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        for part in self._parts if dist.get_rank() == 0 else self._parts[::-1]:
            dist.barrier(part)
        super().save(*args, **kwargs)
