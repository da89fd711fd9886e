"""Saves and loads of tensors on a real GPU; what they ask of CUDA is in `test_cuda_paths.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig

DEVICE = "cuda"
WIDTH = 1024
MIB = 1 << 20

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no GPU here that this torch can use"
)


@pytest.fixture(autouse=True)
def world(tmp_path: Path) -> Iterator[None]:
    """Of one rank, which has the GPU."""
    meeting = f"file://{tmp_path / 'store'}"
    backend = "cpu:gloo,cuda:nccl" if DEVICE == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Training:
    """Four sharded layers with dropout, and their moments: 48 MiB."""

    def __init__(self, directory: Path, mode: AsyncCheckpointMode, *, seed: int) -> None:
        torch.manual_seed(seed)
        layers = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4)]
        self.model: nn.Module = nn.Sequential(*layers, nn.Dropout(0.5)).to(DEVICE)
        fully_shard(self.model, mesh=init_device_mesh(DEVICE, (1,)))
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        config = CheckpointConfig(dir=str(directory), async_mode=mode)
        self.manager = CheckpointManager(config, self.model, self.optimizer)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.ones(8, WIDTH, device=DEVICE)).square().mean().backward()
        self.optimizer.step()

    def state(self) -> dict[str, torch.Tensor]:
        """Copies of every tensor, on the host."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        found = {name: _on_host(value) for name, value in model.items()}
        moments: Any = optimizer["state"]
        for name, held in moments.items():
            found |= {f"{name}.{key}": _on_host(value) for key, value in held.items()}
        return found


def _on_host(value: Any) -> torch.Tensor:
    local: torch.Tensor = value.to_local() if hasattr(value, "to_local") else value
    return local.detach().cpu().clone()


def _differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_what_training_does_after_the_call_is_not_in_the_checkpoint(
    tmp_path: Path, mode: AsyncCheckpointMode
) -> None:
    training = Training(tmp_path / "c", mode, seed=1)
    for step in (1, 2, 3):
        training.step()
        saved = training.state()
        training.manager.save(step)
        for _ in range(20):  # queued kernels that change every tensor at once
            training.step()
        training.manager.wait()
        fresh = Training(tmp_path / "c", mode, seed=2)
        assert fresh.manager.load()[0] == step
        assert _differing(fresh.state(), saved) == []
        assert _differing(fresh.state(), training.state()) != []


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_a_resumed_run_draws_and_computes_what_the_first_one_does(
    tmp_path: Path, mode: AsyncCheckpointMode
) -> None:
    training = Training(tmp_path / "c", mode, seed=1)
    training.step()
    training.manager.save(1)
    for _ in range(3):
        training.step()
    training.manager.wait()
    fresh = Training(tmp_path / "c", mode, seed=2)
    fresh.manager.load()
    for _ in range(3):
        fresh.step()
    assert _differing(fresh.state(), training.state()) == []


@pytest.mark.parametrize("mode", AsyncCheckpointMode)
def test_a_save_takes_no_memory_of_the_gpu(tmp_path: Path, mode: AsyncCheckpointMode) -> None:
    training = Training(tmp_path / "c", mode, seed=1)
    training.step()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for step in (1, 2):
        training.manager.save(step)
        training.manager.wait()
    assert torch.cuda.max_memory_allocated() - before < MIB


def test_stock_dcp_reads_what_was_saved_on_a_gpu(tmp_path: Path) -> None:
    training = Training(tmp_path / "c", AsyncCheckpointMode.async_pinned, seed=1)
    training.step()
    saved = training.state()
    training.manager.save(1)
    training.manager.wait()
    fresh = Training(tmp_path / "other", AsyncCheckpointMode.disabled, seed=2)
    model, optimizer = get_state_dict(fresh.model, fresh.optimizer)
    state: dict[str, Any] = {"model": model, "optimizer": optimizer}
    dcp_load(state, storage_reader=FileSystemReader(tmp_path / "c/step_1"))
    read = {name: _on_host(value) for name, value in state["model"].items()}
    assert _differing(read, {name: saved[name] for name in read}) == []


def test_a_process_without_a_gpu_goes_on_from_it(tmp_path: Path) -> None:
    training = Training(tmp_path / "c", AsyncCheckpointMode.disabled, seed=1)
    training.step()
    training.manager.save(1)
    torch.save(training.state(), tmp_path / "saved.pt")
    code = (
        "import sys; from pathlib import Path; import torch, torch.distributed as dist\n"
        "from tests.checkpoint import test_on_gpu as there\n"
        "there.DEVICE, home = 'cpu', Path(sys.argv[1])\n"
        "meeting = f'file://{home}/store_of_the_host'\n"
        "dist.init_process_group('gloo', init_method=meeting, rank=0, world_size=1)\n"
        "job = there.Training(home / 'host', there.AsyncCheckpointMode.disabled, seed=2)\n"
        "assert job.manager.load(str(home / 'c/step_1'))[0] == 1\n"
        "assert there._differing(job.state(), torch.load(home / 'saved.pt')) == []\n"
        "job.step(); job.manager.save(2)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    # What has no states of CUDA's generators leaves those of this process as they are.
    fresh = Training(tmp_path / "host", AsyncCheckpointMode.disabled, seed=3)
    assert fresh.manager.load()[0] == 2
