"""Finds a rank's place among the others: its device, its place on each axis, its groups.

The order of the axes is that of `World`: the pipeline outermost, tensor-parallel peers innermost.

Training has process groups of its own, and so has the manager: gloo matches the collectives of a
group by their order alone, so a save in the background must not share one with training. The
default group is left to the code under test, too. Only a scenario with `shares_groups` trains on
the groups that the manager gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout

from harness.budget import training_limit_s
from harness.jobs.training.models import ModelPart, split
from harness.scenario.schema import Checkpoint
from harness.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The place of this rank."""

    rank: int
    world: World
    device: torch.device
    shards: DeviceMesh | None
    """The mesh over which FSDP2 shards, replicas before shards; None if it does not shard."""
    peers: DeviceMesh | None
    """The tensor-parallel peers, if there are any."""
    stages: DeviceMesh | None
    """The ranks at this place of each stage, if there are stages."""
    everyone: dist.ProcessGroup | None
    """All ranks, for training; None is the default group."""
    stage_group: dist.ProcessGroup | None
    """The ranks of this stage, for the manager; None lets it take the default group."""

    @property
    def stage(self) -> int:
        """The pipeline stage of this rank."""
        return self.world.stage_of(self.rank)

    @property
    def data_rank(self) -> int:
        """The part of a batch that this rank reads."""
        return self.world.data_rank_of(self.rank)

    @property
    def stream(self) -> int:
        """The stream of random numbers that this rank draws; tensor-parallel peers share one.

        They hold the same activations between their shards, and the same input.
        """
        return self.rank // self.world.tp

    @property
    def is_first(self) -> bool:
        """Whether this rank holds the beginning of the model."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether this rank holds the end of the model."""
        return self.stage == self.world.pp - 1

    def parts(self, layers: int) -> tuple[ModelPart, ...]:
        """Returns this rank's parts of a model with `layers` blocks; two if they interleave."""
        count = self.world.pp * self.world.chunks
        return tuple(split(layers, count, one) for one in range(self.stage, count, self.world.pp))


def training_timeout(world: World, checkpoint: Checkpoint | None) -> timedelta | None:
    """Returns how long the collectives of training wait for a rank.

    None is torch's default of half an hour; it is shorter if a cable can be pulled.
    """
    if world.nodes == 1 or checkpoint is None or checkpoint.timeout_s is None:
        return None
    return timedelta(seconds=training_limit_s(checkpoint.timeout_s))


def limit_waits(place: Place, timeout: timedelta | None) -> None:
    """Give all groups the timeout of training; they do not inherit it from the world."""
    if timeout is None:
        return
    meshes = [mesh for mesh in (place.shards, place.peers, place.stages) if mesh is not None]
    groups = [group for mesh in meshes for group in mesh.get_all_groups()]
    for group in (*groups, place.everyone, place.stage_group):
        if group is not None:
            _set_pg_timeout(timeout, group)


def find_place(
    world: World, rank: int, device: torch.device, *, backend: str, shares_groups: bool
) -> Place:
    """Build the mesh and the groups. Collective over all ranks."""
    sharded = ("dp_replicate", "dp_shard") if world.dp_replicate > 1 else ("dp_shard",)
    used = {
        "pp": world.pp > 1,
        "dp_replicate": world.dp_replicate > 1,
        "dp_shard": world.is_sharded,
        "tp": world.tp > 1,
    }
    axes = tuple(axis for axis, there in used.items() if there)
    shape = tuple(getattr(world, axis) for axis in axes)
    # A mesh takes the default group for an axis of all ranks, unless it is told which backend.
    apart: dict[Any, Any] = {} if shares_groups else dict.fromkeys(axes, backend)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=axes, backend_override=apart)
    groups = _shared_groups if shares_groups else _groups_apart
    everyone, stage_group = groups(world, mesh)
    return Place(
        rank=rank,
        world=world,
        device=device,
        shards=mesh[sharded] if world.is_sharded else None,
        peers=mesh["tp"] if world.tp > 1 else None,
        stages=mesh["pp"] if world.pp > 1 else None,
        everyone=everyone,
        stage_group=stage_group,
    )


Group = dist.ProcessGroup | None


def _groups_apart(world: World, mesh: DeviceMesh) -> tuple[Group, Group]:
    everyone = mesh.get_group() if mesh.ndim == 1 else dist.new_group()
    return everyone, _new_stage_group(world)


def _shared_groups(world: World, mesh: DeviceMesh) -> tuple[Group, Group]:
    inside = [axis for axis in mesh.mesh_dim_names or () if axis != "pp"]
    if world.pp == 1:
        return None, None
    return None, mesh.get_group(inside[0]) if len(inside) == 1 else _new_stage_group(world)


def _new_stage_group(world: World) -> dist.ProcessGroup:
    size = world.stage_size
    stages = [list(range(first, first + size)) for first in range(0, world.size, size)]
    found: Any = dist.new_subgroups_by_enumeration(stages)  # type: ignore[no-untyped-call]
    group: dist.ProcessGroup = found[0]
    return group
