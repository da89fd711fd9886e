"""A seeded bug: `.metadata` is taken over from the save before, ahead of the shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch.distributed as dist

from tests.harness.layouts.step_manager import METADATA, StepManager
from tests.harness.layouts.step_manager import ShutdownHandler as ShutdownHandler
from tests.harness.layouts.step_manager import resolve_resume_path as resolve_resume_path


class MetadataFirst(StepManager):
    """Names the shards before they are there."""

    def _begin(self, folder: Path) -> None:
        earlier = resolve_resume_path(str(self._dir))
        if dist.get_rank() == 0 and earlier is not None:
            shutil.copyfile(Path(earlier) / METADATA, folder / METADATA)
        dist.barrier()
