"""A correct manager in which each rank keeps its own state, in the form that its objects give it.

The model's and the optimizer's `state_dict()` go through their own hooks, tensor subclasses and
distributed tensors are taken apart and put together again, and tensors among the extra values are
each rank's. For one arrangement of ranks. What stands in DCP's files is not read again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager, _agree
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path

TENSORS = ("ema", "gradients")
"""The extra values that hold tensors."""


class OwnForm(SimpleManager):
    """Parts of it can be replaced: what is taken of an object, and how it is given back."""

    _given: dict[str, Any] | None = None
    _taken: dict[str, Any] | None = None

    def save(
        self, step: int, tokens_seen: int = 0, scheduler: Any = None, dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        given = extra or {}
        self._given = {key: given[key] for key in TENSORS if key in given}
        rest = {key: value for key, value in given.items() if key not in TENSORS}
        super().save(step, tokens_seen, scheduler, dataloader, rest)

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        step, tokens_seen, extra = super().load(*args, **kwargs)
        return step, tokens_seen, {**extra, **(self._taken or {})}

    def model_state(self) -> dict[str, Any]:
        """What there is to save of the model."""
        return self._model.state_dict()

    def optimizer_state(self) -> Any:
        """What there is to save of the optimizer."""
        return self._optimizer.state_dict()

    def take_model(self, state: dict[str, Any]) -> None:
        """Give it back."""
        self._model.load_state_dict(state)

    def take_optimizer(self, state: Any) -> None:
        """Give it back."""
        self._optimizer.load_state_dict(state)

    def rank_read(self) -> int:
        """The rank whose extra tensors this one gets back."""
        return dist.get_rank()

    def apart(self, value: Any) -> Any:
        """A value without tensors that only live in this process."""
        return _apart(value)

    def _tensors(self) -> dict[str, Any]:
        return {f"model.{name}": param for name, param in self._model.named_parameters()}

    def _write_shards(self, staging: Path) -> None:
        super()._write_shards(staging)
        state = {
            "model": self.model_state(),
            "optimizer": self.optimizer_state(),
            "extra": self._given,
        }
        torch.save(self.apart(state), staging / _own_file(dist.get_rank()))

    def _read_shards(self, source: Path) -> None:
        mesh = _mesh_of(self._model.parameters())
        mine, other = (
            _together(torch.load(source / _own_file(rank), weights_only=False), mesh)
            for rank in (dist.get_rank(), self.rank_read())
        )
        self.take_model(mine["model"])
        self.take_optimizer(mine["optimizer"])
        self._taken = other["extra"]


def _own_file(rank: int) -> str:
    return f"own_{rank}.pt"


def _mesh_of(params: Any) -> Any:
    return next((one.device_mesh for one in params if isinstance(one, DTensor)), None)


def _apart(value: Any) -> Any:
    if isinstance(value, DTensor):
        place = (value.placements, value.shape, value.stride())
        return _Part("distributed", (_apart(value.to_local().detach()), *place))
    if isinstance(value, Tensor) and hasattr(value, "__tensor_flatten__"):
        names, context = value.__tensor_flatten__()
        inner = {name: _apart(getattr(value, name)) for name in names}
        return _Part("subclass", (type(value), inner, context, value.shape, value.stride()))
    if isinstance(value, Tensor):
        return value.detach().clone()
    return _inside(value, _apart)


def _together(value: Any, mesh: Any) -> Any:
    if isinstance(value, _Part) and value.kind == "distributed":
        local, placements, shape, stride = value.of
        return DTensor.from_local(
            _together(local, mesh), mesh, placements, run_check=False, shape=shape, stride=stride
        )
    if isinstance(value, _Part):
        kind, inner, context, shape, stride = value.of
        return kind.__tensor_unflatten__(_together(inner, mesh), context, shape, stride)
    return _inside(value, lambda one: _together(one, mesh))


def _inside(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: change(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(change(one) for one in value)
    return value


class _Part:
    """What takes the place of a tensor in a file."""

    def __init__(self, kind: str, of: tuple[Any, ...]) -> None:
        self.kind, self.of = kind, of


class ReadsTogether(SimpleManager):
    """Base: where a rank cannot read its shards, all ranks raise the same error."""

    def _read_shards(self, source: Path) -> None:
        _agree(lambda: self._read_once(source))

    def _read_once(self, source: Path) -> None:
        try:
            super()._read_shards(source)
        except CheckpointException as error:  # which is no Exception
            raise RuntimeError(str(error)) from error


class TriesAgain(ReadsTogether):
    """A load that failed is tried once more, on all ranks, with the same checkpoint."""

    def _read_shards(self, source: Path) -> None:
        try:
            super()._read_shards(source)
        except RuntimeError:
            super()._read_shards(source)
