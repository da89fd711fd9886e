"""Rank functions for tests of names: one model, wrapped in several ways in turn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.bits import difference


def compiled(model: Any) -> Any:
    """As torch.compile does, without the second that its own compiler takes to be imported."""
    return torch.compile(model, backend="eager")


def _sharded(model: Any) -> Any:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("dp",))
    return fully_shard(model, mesh=mesh)


def _inside(wrap: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def wrapped(model: Any) -> Any:
        model.module = wrap(model.module)
        return model

    return wrapped


_REPLICATED: Callable[[Any], Any] = DistributedDataParallel
WRAPPINGS: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "plain": (),
    "compiled replicas": (_REPLICATED, compiled),
    "replicas of compiled": (compiled, _REPLICATED),
    "replicas, recomputed": (_inside(checkpoint_wrapper), _REPLICATED),
    "recomputed, compiled, replicas": (_inside(checkpoint_wrapper), compiled, _REPLICATED),
    "shards": (_sharded,),
    "compiled shards": (_sharded, compiled),
    "shards of recomputed": (_inside(checkpoint_wrapper), _sharded),
    "recomputed shards": (_inside(_sharded), _inside(checkpoint_wrapper)),
    "shards within compiled": (_inside(_sharded), _inside(compiled)),
}


class Net(nn.Module):
    """Calls one of its parts as wrappers call what they wrap."""

    def __init__(self) -> None:
        super().__init__()
        self.module: Any = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)


def hand_on(rank: int, directory: Path) -> dict[str, str]:
    """Where a model differs from the first one, after each wrapping has loaded and saved it."""
    found = {}
    expected: list[Any] = []
    for step, (name, wraps) in enumerate(WRAPPINGS.items()):
        torch.manual_seed(step)
        model: Any = Net()
        wrapped = model
        for wrap in wraps:
            wrapped = wrap(wrapped)
        optimizer = torch.optim.AdamW(wrapped.parameters(), lr=0.1)
        config = CheckpointConfig(dir=str(directory / "run"), commit_timeout_s=60.0)
        manager = CheckpointManager(config, wrapped, optimizer)
        if step == 0:
            for number, param in enumerate(model.parameters()):
                param.grad = torch.full_like(param, number + 1.0)
            optimizer.step()
            expected = _whole(model, optimizer)
        elif manager.load()[0] != step:
            found[name] = "another step"
            continue
        found[name] = difference(expected, _whole(model, optimizer))
        manager.save(step + 1)
    return found


def _whole(model: Any, optimizer: Any) -> list[Any]:
    moments = [
        optimizer.state[param][key] for param in model.parameters() for key in ("step", "exp_avg")
    ]
    tensors = [*model.parameters(), *moments]
    return [
        (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for value in tensors
    ]
