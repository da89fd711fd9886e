"""Rank functions for tests of optimizers."""

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint import CheckpointError, CheckpointManager
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.optimizers import build
from tests.checkpoint.training import Net


class Run:
    """A sharded model with one of the optimizers."""

    def __init__(self, directory: Path, kind: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = Net()
        self.model.frozen.requires_grad_(False)
        mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("dp",))
        for layer in self.model.layers.values():
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        torch.manual_seed(seed + dist.get_rank())
        self.optimizer = build(kind, dict(self.model.named_parameters()))
        config = CheckpointConfig(dir=str(directory / kind), commit_timeout_s=30.0, keep_last_n=0)
        self.manager = CheckpointManager(config, self.model, self.optimizer)

    def train(self, first: int, last: int) -> list[str]:
        return [self._step(step) for step in range(first, last + 1)]

    def _step(self, step: int) -> str:
        # Layer 1 is frozen after it has moments.
        self.model.layers["1"].requires_grad_(step < 4)
        self.optimizer.zero_grad()
        self.model(torch.randn(4, 6)).pow(2).mean().backward()
        self.optimizer.step()
        return self.digest()

    def digest(self) -> str:
        names = {id(param): name for name, param in self.model.named_parameters()}
        everything = {
            "model": self.model.state_dict(),
            "state": {
                names[id(param)]: self.optimizer.state[param]
                for group in self.optimizer.param_groups
                for param in group["params"]
                if self.optimizer.state.get(param)
            },
            "rest": {k: v for k, v in self.optimizer.state_dict().items() if k != "state"},
            "rng": torch.get_rng_state(),
        }
        return hashlib.sha256(_text(everything).encode()).hexdigest()


def _text(value: Any) -> str:
    if isinstance(value, DTensor):
        return f"{value.placements}{tuple(value.shape)}{_text(value.to_local())}"
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{tuple(value.shape)}{value.detach().numpy().tobytes().hex()}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k!r}:{_text(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({','.join(map(_text, value))})"
    return repr(value)


def resume_twice(rank: int, directory: Path, kinds: list[str]) -> dict[str, Any]:
    """For each optimizer: digests of the uninterrupted run and of one resumed at 2 and 4."""
    found = {}
    for kind in kinds:
        expected = Run(directory / "straight", kind, 1).train(1, 6)
        run = Run(directory, kind, 1)
        before = run.digest()
        run.manager.save(0)
        changed = run.digest() != before
        digests = run.train(1, 2)
        run.manager.save(2)
        for first, last in ((3, 4), (5, 6)):
            run = Run(directory, kind, 40 + first)
            assert run.manager.load()[0] == first - 1
            digests += run.train(first, last)
            run.manager.save(last)
        found[kind] = (expected == digests, changed)
    return found


def load_elsewhere(rank: int, directory: Path, kinds: list[str]) -> dict[str, str]:
    """What loading into another number of ranks says, by optimizer."""
    found = {}
    for kind in kinds:
        run = Run(directory, kind, 9)
        before = run.digest()
        try:
            found[kind] = str(run.manager.load()[0])
        except CheckpointError as error:
            found[kind] = f"{type(error).__name__}: {error}"
            assert run.digest() == before
            assert run.manager.load(exclude_keys=["optimizer"])[0] == 6
    return found
