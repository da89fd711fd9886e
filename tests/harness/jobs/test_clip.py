"""The norm of all gradients counts each element once, however many ranks hold it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from harness.jobs.training.clip import clip_gradients


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    """A job of one rank; the others of its stage are only said to be there."""
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def clipped(param: torch.nn.Parameter, stage_size: int) -> list[float]:
    model = torch.nn.Module()
    model.register_parameter("weight", param)
    assert clip_gradients(model, None, max_norm=1.0, stage_size=stage_size) == 1
    grad = param.grad
    assert grad is not None
    found: list[float] = (grad.to_local() if isinstance(grad, DTensor) else grad).tolist()
    return found


def test_gradients_are_scaled_to_the_norm_that_is_allowed() -> None:
    param = torch.nn.Parameter(torch.zeros(2))
    param.grad = torch.tensor([3.0, 4.0])
    assert clipped(param, 1) == pytest.approx([0.6, 0.8], rel=1e-5)


def test_what_every_rank_of_the_stage_holds_counts_as_a_share() -> None:
    param = torch.nn.Parameter(torch.zeros(2))
    param.grad = torch.tensor([3.0, 4.0])
    norm = math.sqrt(25 / 2)
    assert clipped(param, 2) == pytest.approx([3 / norm, 4 / norm], rel=1e-5)


@pytest.mark.parametrize("placement", [Replicate(), Shard(0)], ids=str)
def test_a_shard_counts_once_for_each_rank_that_holds_it(
    placement: Replicate | Shard,
) -> None:
    mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("dp_shard",))
    param = torch.nn.Parameter(DTensor.from_local(torch.zeros(2), mesh, [placement]))
    param.grad = DTensor.from_local(torch.tensor([3.0, 4.0]), mesh, [placement])
    norm = math.sqrt(25 / 4)
    assert clipped(param, 4) == pytest.approx([3 / norm, 4 / norm], rel=1e-5)
