"""Managers that go wrong where another arrangement of ranks continues what one had saved."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.state import global_names
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path
from kempnerforge.resilience.signal_handler import ShutdownHandler as ShutdownHandler

_BLOCK = re.compile(r"(?<=blocks\.)\d+")


class NumbersBlocksByStage(CheckpointManager):
    """Blocks are named by stage and place in it, which interleaved parts are not in order of."""

    def __init__(self, config: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, model, *args, **kwargs)
        plain, first = global_names.plain_name, kwargs.get("pp_rank") or 0
        mine = sorted({int(one) for name, _ in model.named_parameters() for one in _found(name)})

        def numbered(model: nn.Module, name: str) -> str:
            return _BLOCK.sub(
                lambda one: str(first * len(mine) + mine.index(int(one[0]))), plain(model, name)
            )

        global_names.plain_name = numbered


def _found(name: str) -> list[str]:
    return _BLOCK.findall(name)


class CountsPositionsByRank(CheckpointManager):
    """Positions of other ranks are taken for counts of samples, and converted to this degree."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        if "dataloader" in kwargs:
            kwargs["dataloader"] = _Converting(kwargs["dataloader"])
        return super().load(*args, **kwargs)


class _Converting:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def load_state_dict(self, state: Any) -> None:
        self._inner.load_state_dict(state)

    def load_state_dicts(self, states: Sequence[Any]) -> None:
        now = dist.get_world_size()
        self._inner.load_state_dicts(
            [{**state, "taken": state["taken"] * len(states) // now} for state in states]
        )


class CutsToEqualShards(CheckpointManager):
    """A shard is taken to have as many rows as every other: what exceeds that is not loaded."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        shards = [param for param in self._model.parameters() if isinstance(param, DTensor)]
        before = [param.to_local().detach().clone() for param in shards]
        result = super().load(*args, **kwargs)
        with torch.no_grad():
            for param, old in zip(shards, before, strict=True):
                equal = param.shape[0] // param.device_mesh.size()
                param.to_local()[equal:] = old[equal:]
        return result
