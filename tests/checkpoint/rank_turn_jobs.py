"""Rank functions for tests of values that differ by rank only sometimes, or do not fit."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from kempnerforge.checkpoint import CheckpointError, CheckpointManager
from kempnerforge.config.schema import CheckpointConfig
from tests.checkpoint.bits import difference, held_by, picture
from tests.checkpoint.rank_value_jobs import Built, Remembering, manager, sgd


def equal_and_differing_in_turn(rank: int, directory: Path, mode: str) -> list[float]:
    """What a rank gets of four saves of one manager, before and while the ranks differ."""
    model = nn.Linear(1, 1)
    held = manager(directory, (model, sgd(model)), mode)
    found = []
    for step, number in enumerate((1.0, 2.0 + rank, 3.0, 4.0 + rank), start=1):
        nn.init.constant_(model.weight, number)
        held.save(step)
        held.wait()
        again = nn.Linear(1, 1)
        manager(directory, (again, sgd(again))).load()
        found.append(again.weight.item())
    return found


def shards_of_two_meshes(rank: int, directory: Path) -> str:
    """Where sharded experts of one name differ, two ranks each, after a load."""

    def build(number: float) -> Built:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("experts", "shards"))["shards"]
        model = nn.Module()
        local = torch.full((2, 3), number)
        weight = DTensor.from_local(local, mesh, [Shard(0)], run_check=False)
        model.weight = nn.Parameter(weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        moment = DTensor.from_local(local + 10, mesh, [Shard(0)], run_check=False)
        optimizer.state[model.weight]["momentum_buffer"] = moment
        return model, optimizer

    saved, found = build(rank + 1.0), build(0.0)
    manager(directory, saved).save(1)
    manager(directory, found).load()
    return difference(_locals_of(saved), _locals_of(found))


def _locals_of(built: Built) -> list[Any]:
    return [value._local_tensor for value in _tensors_in(built)]


def _tensors_in(built: Built) -> list[Any]:
    held = held_by(*built)
    return [held["parameters"]["weight"], held["state"]["weight"]["momentum_buffer"]]


def what_does_not_fit_on_one_rank(rank: int, directory: Path) -> list[tuple[str, str]]:
    """Errors of loads that one rank alone cannot make, and what had changed by then."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("dp",))
    spread = DTensor.from_local(torch.ones(2), mesh, [Shard(0)])
    norm, grown, spread_state, none = (
        nn.BatchNorm1d(2),
        nn.BatchNorm1d(2),
        Remembering(spread),
        Remembering(spread if rank else None),
    )
    nn.init.constant_(grown.weight, 7.0)
    if rank:
        grown.running_mean = torch.zeros(3)
    found = []
    for name, then, now in (("norm", norm, grown), ("spread", spread_state, none)):
        manager(directory / name, (then, sgd(then))).save(1)
        built = now, sgd(now)
        before = picture(*built)
        try:
            manager(directory / name, built).load()
            error = ""
        except CheckpointError as caught:
            error = f"{type(caught).__name__}: {caught}"
        found.append((error, difference(before, picture(*built))))
    return found


def own_values_in_stages(rank: int, directory: Path) -> str:
    """Where a rank of two stages with two ranks each differs after a load, all having their own."""

    def build(number: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Module()
        model.add_module(f"block{rank // 2}", nn.Linear(2, 2))
        model.tied = nn.Linear(1, 1)
        model.register_buffer("buffer", torch.full((2,), number))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * number, momentum=0.9)
        for param in model.parameters():
            nn.init.constant_(param, number)
            param.grad = torch.full_like(param, number)
        optimizer.step()
        return model, optimizer

    def held(built: tuple[nn.Module, torch.optim.Optimizer]) -> CheckpointManager:
        config = CheckpointConfig(dir=str(directory / "stages"), commit_timeout_s=60.0)
        return CheckpointManager(config, *built, pp_rank=rank // 2)

    saved, found = build(1.0 + rank), build(9.0)
    held(saved).save(1)
    held(found).load()
    return difference(*({**m.state_dict(), **o.state_dict()} for m, o in (saved, found)))
