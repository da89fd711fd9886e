"""The job's AdamW gives, bit for bit, what torch's gives through DTensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.optim import AdamW, Optimizer

from harness.jobs.training.optimizers import adamw

SHAPES = ((5, 3), (7,), (0, 4))
"""The last one is the shard of a rank that has nothing of a parameter."""


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("dp_shard",))
    dist.destroy_process_group()


def sharded(mesh: DeviceMesh, chance: torch.Generator) -> list[torch.nn.Parameter]:
    return [
        torch.nn.Parameter(
            DTensor.from_local(torch.randn(shape, generator=chance), mesh, [Shard(0)])
        )
        for shape in SHAPES
    ]


def trained(
    optimizer: Optimizer, params: list[torch.nn.Parameter], mesh: DeviceMesh
) -> list[bytes]:
    """Take three steps; the bytes of the parameters and of all that the optimizer holds."""
    chance = torch.Generator().manual_seed(1)
    for _ in range(3):
        for param, shape in zip(params, SHAPES, strict=True):
            grad = torch.randn(shape, generator=chance)
            param.grad = DTensor.from_local(grad, mesh, [Shard(0)])
        optimizer.step()
    held = [value for param in params for value in optimizer.state[param].values()]
    return [
        (one.to_local() if isinstance(one, DTensor) else one).detach().numpy().tobytes()
        for one in (*params, *held)
    ]


def test_shards_are_updated_as_through_dtensor(mesh: DeviceMesh) -> None:
    ours = sharded(mesh, torch.Generator().manual_seed(0))
    theirs = sharded(mesh, torch.Generator().manual_seed(0))
    own = adamw.build((tuple(ours),), 3e-3)
    settings = {key: own.param_groups[0][key] for key in ("lr", "weight_decay", "fused")}

    assert trained(own, ours, mesh) == trained(AdamW(theirs, **settings), theirs, mesh)
    assert isinstance(own.state[ours[0]]["exp_avg"], DTensor)
