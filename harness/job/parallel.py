"""How the ranks share the work: a mesh of pipeline stages and FSDP2 shards, and one training pass.

Ranks are numbered with the pipeline outermost. With one stage the model runs as it is, with two it
runs as a GPipe schedule; both are FSDP2-sharded over the ranks of a stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

from harness.job.models import IMAGE_SIDE, VOCABULARY, Part, split, text_loss, visible_length
from harness.plan.model import Workload
from harness.run.budget import training_limit_s
from harness.scenario.schema import Checkpoint, World

_MICROBATCHES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this rank stands."""

    rank: int
    world: World
    device: torch.device
    shards: DeviceMesh
    stages: DeviceMesh | None

    @property
    def stage(self) -> int:
        """The pipeline stage of this rank."""
        return self.rank // self.world.dp_shard

    @property
    def shard(self) -> int:
        """The place among the ranks of this stage, which is also the data-parallel rank."""
        return self.rank % self.world.dp_shard

    @property
    def stage_group(self) -> dist.ProcessGroup | None:
        """The ranks of this stage, where there are stages."""
        return None if self.stages is None else self.shards.get_group()

    @property
    def is_first(self) -> bool:
        """Whether this rank's stage is the first."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether this rank's stage is the last."""
        return self.stage == self.world.pp - 1

    def part(self, layers: int) -> Part:
        """What this rank's stage holds of a model with `layers` blocks."""
        return split(layers, self.world.pp, self.stage)


def training_timeout(world: World, checkpoint: Checkpoint | None) -> timedelta | None:
    """How long the collectives of training wait for a rank.

    As long as torch sets, half an hour, but where a cable may be pulled.
    """
    if world.nodes == 1 or checkpoint is None or checkpoint.timeout_s is None:
        return None
    return timedelta(seconds=training_limit_s(checkpoint.timeout_s))


def limit_waits(place: Place, timeout: timedelta | None) -> None:
    """Give the groups of a mesh the timeout of training; they do not take it from the world's."""
    for mesh in (place.shards, place.stages):
        if timeout is not None and mesh is not None:
            _set_pg_timeout(timeout, mesh.get_group())


def find_place(world: World, rank: int, device: torch.device) -> Place:
    """Build the mesh. Collective over all ranks."""
    if world.pp == 1:
        shards = init_device_mesh(device.type, (world.dp_shard,), mesh_dim_names=("dp_shard",))
        return Place(rank=rank, world=world, device=device, shards=shards, stages=None)
    shape = (world.pp, world.dp_shard)
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=("pp", "dp_shard"))
    return Place(rank=rank, world=world, device=device, shards=mesh["dp_shard"], stages=mesh["pp"])


def shard(model: nn.Module, place: Place) -> None:
    """FSDP2 over the transformer blocks, and over the rest as the root.

    The blocks are one group, and gathered once a step: with two ranks a core, the time of a step
    is mostly that of waiting in collectives.
    """
    blocks = list(model.get_submodule("transformer.blocks").children())
    if blocks:
        fully_shard(blocks, mesh=place.shards, reshard_after_forward=False)
    fully_shard(model, mesh=place.shards, reshard_after_forward=False)


class Pass(Protocol):
    """One forward and backward pass over a batch."""

    def run(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor | None:
        """Leave gradients behind. The loss, or None on a stage that has none."""


class WholePass:
    """The whole model on every rank."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def run(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Forward, loss, backward."""
        loss = text_loss(self._model(*inputs), targets)
        torch.autograd.backward(loss)
        return loss.detach()


class PipelinePass:
    """One stage of a GPipe schedule."""

    def __init__(self, model: nn.Module, place: Place, workload: Workload) -> None:
        assert place.stages is not None
        # A schedule needs microbatches of one size.
        batch = workload.data.batch_size
        count = _MICROBATCHES if batch % _MICROBATCHES == 0 else 1
        self._part = place.part(workload.model.layers)
        given, produced = _example(workload, self._part, rows=batch // count)
        stage = PipelineStage(
            model,
            place.stage,
            place.world.pp,
            place.device,
            input_args=given,
            output_args=produced,
            group=place.stages.get_group(),
        )
        self._schedule = ScheduleGPipe(stage, count, loss_fn=text_loss)

    def run(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor | None:
        """Run the schedule; only the first stage reads the inputs and only the last the targets."""
        given = inputs if self._part.first else ()
        if not self._part.last:
            self._schedule.step(*given, return_outputs=False)
            return None
        losses: list[Tensor] = []
        self._schedule.step(*given, target=targets, losses=losses, return_outputs=False)
        return torch.stack([loss.detach() for loss in losses]).mean()


def _example(
    workload: Workload, part: Part, *, rows: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Shapes of what a stage is given and produces, on the meta device.

    Left to find out by itself, a stage runs the model once more before the first step, and the
    dropout of that run draws random numbers that the uninterrupted run does not draw again.
    """
    model, data = workload.model, workload.data
    length = visible_length(model, data)
    hidden = torch.empty(rows, length, model.dim, device="meta", requires_grad=True)
    logits = torch.empty(rows * data.seq_len, VOCABULARY, device="meta", requires_grad=True)
    tokens = torch.empty(rows, data.seq_len, dtype=torch.int64, device="meta")
    images = torch.empty(rows, IMAGE_SIDE, IMAGE_SIDE, device="meta")
    first = (tokens, images) if model.preset == "tiny_vlm" else (tokens,)
    return first if part.first else (hidden,), (logits if part.last else hidden,)


def build_pass(model: nn.Module, place: Place, workload: Workload) -> Pass:
    """The pass that fits the world."""
    if place.stages is None:
        return WholePass(model)
    return PipelinePass(model, place, workload)
