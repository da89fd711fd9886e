"""A tiny training job for tests, with every kind of state that a resume must restore."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.config.schema import CheckpointConfig


class Counter:
    """A dataloader with a position of its own."""

    def __init__(self, start: int = 0) -> None:
        self.position = start

    def next(self) -> int:
        self.position += 1
        return self.position

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


class Net(nn.Module):
    """Layers by global number, so that a pipeline stage can hold some of them."""

    seen: torch.Tensor

    def __init__(self, layers: range = range(2)) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleDict({str(n): nn.Linear(6, 6) for n in layers})
        self.frozen: Any = nn.Linear(6, 6)
        self.unused = nn.Linear(3, 5)
        self.register_buffer("seen", torch.zeros(()))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        for layer in self.layers.values():
            x = self.dropout(torch.tanh(layer(x)))
        out: torch.Tensor = self.frozen(x)
        return out


@dataclass(frozen=True)
class Part:
    """What a rank holds: all layers, or those of a pipeline stage, spread over a mesh."""

    layers: range = range(2)
    pp_rank: int | None = None
    mesh: Any = None


class Job:
    """Model, optimizer, scheduler, dataloader and manager of one rank."""

    def __init__(
        self,
        directory: Path,
        rank: int,
        *,
        seed: int,
        sharded: bool = False,
        part: Part = Part(),
        **options: Any,
    ) -> None:
        torch.manual_seed(seed + 7 * (part.pp_rank or 0))
        random.seed(seed + rank)
        np.random.seed(seed + rank)
        self.model = Net(part.layers)
        self.model.frozen.requires_grad_(False)
        if sharded:
            import torch.distributed as dist

            mesh = part.mesh or init_device_mesh(
                "cpu", (dist.get_world_size(),), mesh_dim_names=("dp",)
            )
            for layer in self.model.layers.values():
                fully_shard(layer, mesh=mesh)
            fully_shard(self.model, mesh=mesh)
        torch.manual_seed(seed + 1000 + rank)
        named = dict(self.model.named_parameters())
        decayed = [p for n, p in named.items() if n.endswith("weight")]
        rest = [p for n, p in named.items() if not n.endswith("weight")]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
            lr=0.01,
        )
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=20)
        self.loader = Counter(100 * rank)
        config = CheckpointConfig(
            dir=str(directory / "checkpoints"), **{"commit_timeout_s": 300.0, **options}
        )
        self.manager = CheckpointManager(config, self.model, self.optimizer, pp_rank=part.pp_rank)

    def train(self, steps: int) -> list[str]:
        """Digests after each step."""
        return [self._train_one() for _ in range(steps)]

    def _train_one(self) -> str:
        x = torch.randn(4, 6) + self.loader.next() + random.random() + float(np.random.rand())
        self.optimizer.zero_grad()
        loss = self.model(x).pow(2).mean()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return self.digest()

    def save(self, step: int, **extra: Any) -> None:
        self.manager.save(step, step * 10, self.scheduler, self.loader, extra or None)

    def load(self, path: str | None = None, **options: Any) -> tuple[int, int, dict[str, Any]]:
        return self.manager.load(path, self.scheduler, self.loader, **options)

    def digest(self) -> str:
        """Of all state that matters, bit for bit."""
        found = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            found.update(name.encode() + _bytes(value))
        for group in self.optimizer.param_groups:
            found.update(repr({k: v for k, v in group.items() if k != "params"}).encode())
            for param in group["params"]:
                for key, value in sorted(self.optimizer.state.get(param, {}).items()):
                    found.update(key.encode() + _bytes(value))
        found.update(repr(random.getstate()).encode())
        found.update(repr(np.random.get_state()).encode())
        found.update(_bytes(torch.get_rng_state()))
        found.update(repr((self.loader.position, self.scheduler.last_epoch)).encode())
        return found.hexdigest()


def _bytes(value: Any) -> bytes:
    local = value.to_local() if isinstance(value, DTensor) else value
    return f"{local.dtype}{tuple(local.shape)}".encode() + local.detach().numpy().tobytes()


class GlobalOrder:
    """A dataloader over one order of samples that all ranks deal out in turn, at any degree.

    Its position is how many samples of the order all ranks have taken together.
    """

    def __init__(self, rank: int, degree: int, *, batch: int, samples: int) -> None:
        self.rank, self.degree, self.batch, self.samples = rank, degree, batch, samples
        self.begin = 0
        self.batches = 0

    def next(self) -> list[int]:
        first = self.begin + (self.batches * self.degree + self.rank) * self.batch
        self.batches += 1
        return list(range(first, min(first + self.batch, self.samples)))

    def state_dict(self) -> dict[str, int]:
        return {"begin": self.begin, "taken": self.batches * self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.begin, self.batches = state["begin"], state["taken"] // self.batch

    def load_state_dicts(self, states: Sequence[Any]) -> None:
        self.begin = states[0]["begin"] + sum(state["taken"] for state in states)
        self.batches = 0
