"""Managers that go wrong where the next run arranges its ranks in another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path
from kempnerforge.resilience.signal_handler import ShutdownHandler as ShutdownHandler


class VerifiesForThisWorld(CheckpointManager):
    """B14: a checkpoint counts as incomplete that has the files of another number of ranks."""

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        found = len(list(Path(str(path)).glob("**/*.distcp")))
        if found != dist.get_world_size():
            raise ValueError(f"{path} has {found} shards")
        return super().load(path, *args, **kwargs)


class MergesInTheWrongOrder(CheckpointManager):
    """G11: where stages are joined, the moments of two parameters change places."""

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        result = super().load(path, *args, **kwargs)
        if len(list(Path(str(path)).glob("**/*.distcp"))) > dist.get_world_size():
            states = [one["exp_avg"] for one in self._optimizer.state.values()]
            first = states[0]
            other = [one for one in states[1:] if one.shape == first.shape][-1]
            kept = first.clone()
            first.copy_(other)
            other.copy_(kept)
        return result


class DropsWeightDecayWhereRanksChange(CheckpointManager):
    """The tensors come back in another arrangement, and the settings of their groups do not."""

    def load(self, path: str | None = None, *args: Any, **kwargs: Any) -> Any:
        result = super().load(path, *args, **kwargs)
        if len(list(Path(str(path)).glob("**/*.distcp"))) != dist.get_world_size():
            for group in self._optimizer.param_groups:
                group["weight_decay"] = 0.0
        return result
