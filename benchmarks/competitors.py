"""The savers of `benchmarks.checkpoint`: the package, stock DCP, and floors."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType, async_save
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig

# Inner and outer width, and the number of bias-free layers that lead from one to the other in turn.
# AdamW makes it 12 bytes a weight; each of two ranks holds 2,100 tensors of 4 KiB of `many`.
SHAPES = {
    "50": (512, 512, 16),
    "500": (1024, 1024, 40),
    "1500": (2048, 2048, 31),
    "many": (32, 64, 700),
}


class Competitor(Protocol):
    """One way to save."""

    name: str

    def begin(self, step: int) -> None:
        """Save; training can continue when this returns."""

    def finish(self) -> None:
        """Return when the save is complete."""

    def clean(self) -> None:
        """Free disk space; not timed."""


@dataclass
class Training:
    """The model and the optimizer of one rank."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch: torch.Tensor

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(self.batch).square().mean().backward()
        self.optimizer.step()

    def tensors(self) -> list[torch.Tensor]:
        """Returns the rank's own part of every tensor of the state."""
        held: list[Any] = list(self.model.parameters())
        for state in self.optimizer.state.values():
            held += [value for value in state.values() if isinstance(value, torch.Tensor)]
        with torch.no_grad():
            return [
                value.to_local() if isinstance(value, DTensor) else value.detach() for value in held
            ]

    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors())


def training_of(size: str, device: str, *, seed: int) -> Training:
    """Returns a model of this size, sharded over all ranks, and its optimizer."""
    inner, outer, layers = SHAPES[size]
    torch.manual_seed(seed)
    widths = [outer if number % 2 else inner for number in range(layers + 1)]
    model = nn.Sequential(*(nn.Linear(*pair, bias=False) for pair in pairwise(widths))).to(device)
    fully_shard(model, mesh=init_device_mesh(device, (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return Training(model, optimizer, torch.randn(32, inner, device=device))


class Ours:
    """CheckpointManager in one of its modes; `cached` always goes through the page cache."""

    def __init__(
        self, training: Training, home: Path, mode: AsyncCheckpointMode, *, cached: bool = False
    ) -> None:
        short = {"disabled": "sync", "async": "async", "async_with_pinned_mem": "pinned"}
        self.name = f"kempnerforge {short[mode.value]}" + (", cached" if cached else "")
        self.directory = home / f"ours-{mode.value}{'-cached' if cached else ''}"
        config = CheckpointConfig(
            dir=str(self.directory), async_mode=mode, keep_last_n=0, direct_io=not cached
        )
        self._manager = CheckpointManager(config, training.model, training.optimizer)

    def begin(self, step: int) -> None:
        self._manager.save(step)

    def finish(self) -> None:
        self._manager.wait()

    def clean(self) -> None:
        """Deletes here and not by ``keep_last_n``: the others do not delete in a save either."""
        dist.barrier()
        if dist.get_rank() == 0:
            steps = sorted(self.directory.glob("step_*"), key=lambda path: int(path.name[5:]))
            for path in steps[:-1]:
                shutil.rmtree(path)
        dist.barrier()


class Dcp:
    """``dcp.save``, or ``dcp.async_save``, of an already assembled state dict."""

    def __init__(self, state: dict[str, Any], home: Path, kind: AsyncCheckpointerType | None):
        self.name = "DCP sync" if kind is None else f"DCP {kind.name}"
        self._state, self._kind = state, kind
        self._home = home / self.name
        # On training's own group its background collectives would mix with those of the loop.
        self._group = dist.new_group(backend="gloo")
        self._future: Any = None
        self.directory = self._home

    def begin(self, step: int) -> None:
        self.directory = self._home / f"step_{step}"
        writer = FileSystemWriter(self.directory)
        if self._kind is None:
            dcp_save(self._state, storage_writer=writer, process_group=self._group)
        else:
            self._future = async_save(
                self._state,
                storage_writer=writer,
                async_checkpointer_type=self._kind,
                process_group=self._group,
            )

    def finish(self) -> None:
        if self._future is not None:
            self._future.result()

    def clean(self) -> None:
        _remove_older(self._home, self.directory)


class DurableDcp(Dcp):
    """``dcp.save`` with the directories made durable too, which DCP does not do."""

    def __init__(self, state: dict[str, Any], home: Path) -> None:
        super().__init__(state, home, None)
        self.name = "DCP sync + directory fsync"
        self._home = home / "DCP durable"

    def begin(self, step: int) -> None:
        super().begin(step)
        for folder in (self.directory, self._home):
            _sync(os.open(folder, os.O_RDONLY))


class TorchSave:
    """``torch.save`` of the rank's tensors and fsync: no plan, no agreement, no metadata."""

    name = "floor: torch.save + fsync"

    def __init__(self, training: Training, home: Path) -> None:
        self._training, self._home = training, home / "torch-save"
        self.path = self._home / "none"

    def begin(self, step: int) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self.path = self._home / f"{step}-{dist.get_rank()}"
        with self.path.open("wb") as file:
            torch.save(self._training.tensors(), file)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Synchronous."""

    def clean(self) -> None:
        dist.barrier()
        _remove_older(self._home, self.path, suffix=f"-{dist.get_rank()}")


class PlainWrite(TorchSave):
    """Copy, write, fsync: nothing written in Python can be faster."""

    def __init__(self, training: Training, home: Path, *, background: bool) -> None:
        super().__init__(training, home)
        self.name = f"floor: copy, write, fsync ({'thread' if background else 'sync'})"
        self._home = home / f"plain-{background}"
        self._background = background
        self._thread = threading.Thread()
        self._pinned: list[torch.Tensor] = []

    def begin(self, step: int) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self.path = self._home / f"{step}-{dist.get_rank()}"
        tensors = self._training.tensors()
        if tensors[0].is_cuda:
            tensors = self._fetched(tensors)
        elif self._background:
            tensors = [tensor.clone() for tensor in tensors]
        self._thread = threading.Thread(target=self._write, args=(tensors,))
        self._thread.start()
        if not self._background:
            self._thread.join()

    def _fetched(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """Returns copies in pinned memory, which is kept."""
        if not self._pinned:
            self._pinned = [torch.empty_like(each, device="cpu").pin_memory() for each in tensors]
        for target, source in zip(self._pinned, tensors, strict=True):
            target.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        return self._pinned

    def finish(self) -> None:
        self._thread.join()

    def _write(self, tensors: list[torch.Tensor]) -> None:
        with self.path.open("wb", buffering=1 << 20) as file:
            for tensor in tensors:
                data: Any = tensor.numpy().reshape(-1).view("u1")
                file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _sync(fd: int) -> None:
    os.fsync(fd)
    os.close(fd)


def _remove_older(home: Path, kept: Path, *, suffix: str = "") -> None:
    dist.barrier()
    for path in home.iterdir():
        if path != kept and path.name.endswith(suffix):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
    dist.barrier()
