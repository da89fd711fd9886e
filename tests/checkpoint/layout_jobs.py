"""Rank functions for tests of layouts: replicas, shards, tensor parallelism, and mixtures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.checkpoint.archives.shard_metadata import decode_metadata
from kempnerforge.config.schema import CheckpointConfig

_WORDS = 33


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 48), nn.Linear(48, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.down(torch.relu(self.up(self.norm(x))))
        return out


class Net(nn.Module):
    """Shared weights, a size that no number of ranks divides, and a buffer of each rank's own."""

    spread: torch.Tensor
    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, 12)
        self.blocks = nn.ModuleList([_Block(), _Block()])
        self.head = nn.Linear(12, _WORDS, bias=False)
        self.head.weight = self.words.weight
        self.odd = nn.Parameter(torch.randn(7))
        self.register_buffer("spread", torch.zeros(5))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words)
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(x) + self.odd.sum()
        return out


def _mesh(**axes: int) -> Any:
    return init_device_mesh("cpu", tuple(axes.values()), mesh_dim_names=tuple(axes))


def _shard(model: Net, mesh: Any, **options: Any) -> Net:
    for block in model.blocks:
        fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model


def _split(model: Net, mesh: Any) -> Net:
    for block in model.blocks:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return model


def _tensor_and_data_parallel(model: Net) -> Net:
    mesh = _mesh(dp=2, tp=dist.get_world_size() // 2)
    return _shard(_split(model, mesh["tp"]), mesh["dp"])


def _half_precision(model: Net) -> Net:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    mesh = _mesh(dp=dist.get_world_size())
    return _shard(model, mesh, mp_policy=policy, reshard_after_forward=False)


def _recomputed(model: Net) -> Net:
    for number, block in enumerate(model.blocks):
        model.blocks[number] = checkpoint_wrapper(block)
    return _shard(model, _mesh(dp=dist.get_world_size()))


ARRANGEMENTS: dict[str, Callable[[Net], nn.Module]] = {
    "ddp": DistributedDataParallel,
    "fsdp": lambda model: _shard(model, _mesh(dp=dist.get_world_size())),
    "hsdp": lambda model: _shard(model, _mesh(replicas=2, shards=dist.get_world_size() // 2)),
    "tp": lambda model: _split(model, _mesh(tp=dist.get_world_size())),
    "fsdp_tp": _tensor_and_data_parallel,
    "mixed_precision": _half_precision,
    "recomputed": _recomputed,
}


class Job:
    """Model, optimizer and manager of one rank in an arrangement."""

    def __init__(self, directory: Path, arrangement: str, *, mode: str = "disabled") -> None:
        torch.manual_seed(3)
        self.model = ARRANGEMENTS[arrangement](Net())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        config = CheckpointConfig(dir=str(directory), async_mode=mode, commit_timeout_s=60.0)  # type: ignore[arg-type]
        self.manager = CheckpointManager(config, self.model, self.optimizer)
        # Ranks that are peers in tensor parallelism take the same samples.
        rank = dist.get_rank()
        self._peers = {"tp": 0, "fsdp_tp": rank // 2}.get(arrangement, rank)

    @property
    def net(self) -> Any:
        wrapped = isinstance(self.model, DistributedDataParallel)
        return self.model.module if wrapped else self.model

    def train(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            drawn = torch.Generator().manual_seed(1000 * step + self._peers)
            words = torch.randint(0, _WORDS, (2, 5), generator=drawn)
            self.optimizer.zero_grad()
            self.model(words).float().pow(2).mean().backward()
            self.optimizer.step()
            self.net.steps += 1
            self.net.spread += words[0].float()  # what this rank alone has seen

    def spoil(self) -> None:
        """Make sure that what is equal later was loaded."""
        with torch.no_grad():
            for param in self.model.parameters():
                (param.to_local() if isinstance(param, DTensor) else param).mul_(0.5)

    def state(self) -> dict[str, Any]:
        """Whole values by plain name, without this rank's own buffer."""
        names = {id(param): name for name, param in self.net.named_parameters()}
        found = {name: _whole(value) for name, value in self.net.state_dict().items()}
        for param, moments in self.optimizer.state.items():
            for key, value in moments.items():
                found[f"{names[id(param)]} {key}"] = _whole(value)
        del found["spread"]
        return {name.replace("_checkpoint_wrapped_module.", ""): found[name] for name in found}


def _whole(value: torch.Tensor) -> list[float]:
    whole: Any = value.detach()
    whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
    found: list[float] = whole.reshape(-1).tolist()
    return found


def save_and_load_in(rank: int, directory: Path, arrangement: str, others: list[str]) -> Any:
    """What each arrangement makes of a checkpoint of this one, and of training on from it."""
    job = Job(directory, arrangement, mode="async")
    job.train(1, 3)
    job.manager.save(3, 30)
    saved, own = job.state(), job.net.spread.tolist()
    job.train(4, 5)
    job.manager.wait()
    after = (job.state(), job.net.spread.tolist())
    found = {}
    for other in others:
        resumed = Job(directory, other)
        resumed.spoil()
        loaded = resumed.manager.load()
        found[other] = {"step": loaded[0], "equal": resumed.state() == saved}
        if other == arrangement:
            found[other]["own_buffer"] = resumed.net.spread.tolist() == own
            resumed.train(4, 5)
            found[other]["exact"] = (resumed.state(), resumed.net.spread.tolist()) == after
    return found


def save_with_buffers(rank: int, directory: Path, same: bool) -> list[str]:
    """Names of the buffer in the shards, where it is the same on all ranks or not."""
    job = Job(directory, "fsdp")
    job.net.spread += 1 if same else rank
    job.manager.save(1)
    dist.barrier()
    file = directory / "step_1" / ".metadata"
    names = decode_metadata(file.read_bytes(), where=str(file)).state_dict_metadata
    return sorted(name for name in names if name.endswith("model.spread"))


def buffer_of_another_shape(rank: int, directory: Path) -> str:
    """The error of loading a rank's own buffer into a model that has grown."""
    job = Job(directory, "fsdp")
    job.net.spread += rank
    job.manager.save(1)
    grown = Job(directory, "fsdp")
    grown.net.spread = torch.zeros(6)
    try:
        grown.manager.load()
    except Exception as error:  # noqa: BLE001  # what it is, the test says
        return f"{type(error).__name__}: {error}"
    return "none"


class _Remembering(nn.Module):
    """Has extra state that is a tensor made for whoever asks, of a size that changes."""

    def __init__(self, history: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.history = history

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor(self.history)

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.history = state.tolist()


def extra_state_of_each_rank(rank: int, directory: Path) -> list[float]:
    """What comes back of extra state whose values and size differ by rank."""
    for history in ([1.0 + rank] * (1 + rank), []):
        model = _Remembering(history)
        optimizer = torch.optim.SGD(model.parameters())
        manager = CheckpointManager(CheckpointConfig(dir=str(directory)), model, optimizer)
        if history:
            manager.save(1)
    manager.load()
    return model.history
