"""Parallelizes a built model: tensor parallelism, wrappers of the blocks, FSDP2 or DDP.

They are applied in this order, as in training frameworks. The manager is given `model`; `net` has
the same parameters without the wrapper around the whole, under the names that freeze settings and
digests use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from harness.jobs.training.models import cut_out
from harness.jobs.training.parallel import Place
from harness.jobs.training.variants.experts import rank_local
from harness.plan.model import Workload
from harness.scenario.training import Model

_BLOCK_PLAN: dict[str, Callable[[], ParallelStyle]] = {
    "qkv": ColwiseParallel,
    "out": RowwiseParallel,
    "up": ColwiseParallel,
    "down": RowwiseParallel,
}
"""Attention and MLP of a block; every peer holds all of every other module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardedModel:
    """A model as this rank holds it."""

    model: nn.Module
    """The model that the checkpoint manager gets."""
    net: nn.Module
    """The same without the wrapper around the whole."""
    pieces: tuple[nn.Module, ...]
    """The modules that run: the model, or this rank's parts of a pipeline."""


def spread(built: nn.Module, place: Place, workload: Workload) -> ShardedModel:
    """Parallelize a model that is whole on every rank of a stage. Collective."""
    if place.peers is not None:
        _make_tensor_parallel(built, place.peers)
    _wrap_blocks(built, workload.model)
    pieces: tuple[nn.Module, ...] = (built,)
    if place.world.chunks > 1:
        parts = place.parts(workload.model.layers)
        pieces = tuple(cut_out(built, workload.model, workload.data, part) for part in parts)
    for piece in pieces:
        if place.shards is not None:
            _shard(piece, place.shards, workload.model)
        elif workload.model.precision == "bf16_mixed":
            _cast_forward(piece, place.device)
    if place.world.is_ddp:
        _leave_alone(built)
        # DDP moves parameters to other buckets after the first step. A resumed run would then sum
        # in another order than the uninterrupted one; with this setting the buckets stay.
        whole = DistributedDataParallel(
            built, process_group=place.everyone, find_unused_parameters=True
        )
        return ShardedModel(model=whole, net=built, pieces=(whole,))
    return ShardedModel(model=built, net=built, pieces=pieces)


def _blocks(model: nn.Module) -> nn.Module:
    return model.get_submodule("transformer.blocks")


def _make_tensor_parallel(model: nn.Module, peers: DeviceMesh) -> None:
    """Sends nothing: every rank has drawn the same first values."""
    for block in _blocks(model).children():
        plan = {name: style() for name, style in _BLOCK_PLAN.items()}
        parallelize_module(block, peers, plan, src_data_rank=None)
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(isinstance(param, DTensor) for param in own):
            parallelize_module(module, peers, _Replicated(), src_data_rank=None)


class _Replicated(ParallelStyle):
    """Each peer holds the whole module and does the same with it.

    Its parameters are still distributed tensors, so that one optimizer step can take all parameters
    at once.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        return distribute_module(module, device_mesh, None, _to_replicated, _to_plain)


def _to_replicated(module: nn.Module, given: Any, mesh: DeviceMesh) -> Any:  # noqa: ARG001
    return tuple(DTensor.from_local(one, mesh, [Replicate()], run_check=False) for one in given)


def _to_plain(module: nn.Module, made: Any, mesh: DeviceMesh) -> Any:  # noqa: ARG001
    return made.to_local()


def _wrap_blocks(model: nn.Module, settings: Model) -> None:
    """Add wrappers that put a prefix in front of the names inside."""
    blocks = _blocks(model)
    for name, block in list(blocks.named_children()):
        wrapped: Any = checkpoint_wrapper(block) if settings.recompute else block
        if settings.compile:
            # The backend needs no compiler on the machine: the test is the prefix, not the speed.
            wrapped = torch.compile(wrapped, backend="eager")
        blocks.register_module(name, wrapped)


def _shard(piece: nn.Module, mesh: DeviceMesh, settings: Model) -> None:
    """Apply FSDP2 to the transformer blocks, and to the rest as the root.

    The blocks are one group, gathered once per step: with two ranks per core, most of a step's time
    is spent waiting in collectives.
    """
    options: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": False}
    if alone := {param for _, param in rank_local(piece)}:
        options["ignored_params"] = alone
    if settings.precision == "bf16_mixed":
        options["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32
        )
    blocks = list(_blocks(piece).children())
    if blocks:
        fully_shard(blocks, **options)
    fully_shard(piece, **options)


def _leave_alone(model: nn.Module) -> None:
    """Keep DDP from sending or averaging the parameters that are local to each rank."""
    names = [name for name, _ in rank_local(model)]
    if names:
        ddp: Any = DistributedDataParallel
        ddp._set_params_and_buffers_to_ignore_for_model(model, names)


def _cast_forward(piece: Any, device: torch.device) -> None:
    """Autocast only the forward pass; it is not meant for the backward pass."""
    cast = torch.autocast(device.type, dtype=torch.bfloat16)
    piece.forward = cast(piece.forward)
