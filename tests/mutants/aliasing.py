"""Managers that save in the background what they have not copied."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path
from tests.mutants.groups import SavesInItsGroup


class AliasesTheWeights(SavesInItsGroup):
    """The weights are written as they are when the thread comes to them."""

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        is_weight = name in {f"model.{one}" for one, _ in self._model.named_parameters()}
        return value if is_weight else super()._copy(name, value)


class AliasesTheBuffers(SavesInItsGroup):
    """Parameters are copied, and buffers are not."""

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        is_buffer = name in {f"model.{one}" for one, _ in self._model.named_buffers()}
        return value if is_buffer else super()._copy(name, value)


class AliasesTheMoments(SavesInItsGroup):
    """The state of the optimizer is not copied, except for its counters."""

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        is_moment = name.startswith("optimizer.") and value.dim() > 0
        return value if is_moment else super()._copy(name, value)


class AliasesTheCounters(SavesInItsGroup):
    """What lies in the memory of the host already is not copied there: the optimizer's counters."""

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        is_counter = name.startswith("optimizer.") and value.dim() == 0
        return value if is_counter else super()._copy(name, value)


class AliasesOnOneRank(SavesInItsGroup):
    """The last rank copies nothing."""

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        is_last = dist.get_rank() == dist.get_world_size() - 1
        return value if is_last else super()._copy(name, value)


class AliasesTheExtra(SavesInItsGroup):
    """The extra values of the loop are pickled by the thread."""

    def _copy_value(self, name: str, value: Any) -> Any:
        return value if name == "extra" else super()._copy_value(name, value)


class ReadsTheSettingsLate(SavesInItsGroup):
    """The settings of the parameter groups are read by the thread."""

    def _shared_state(self, *args: Any) -> dict[str, Any]:
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self._optimizer.param_groups
        ]
        return {**super()._shared_state(*args), "groups": groups}


class ReadsTheGeneratorsLate(SavesInItsGroup):
    """The random generators are read by the thread."""

    def _write(self, staging: Any, step: int, mine: dict[str, Any]) -> None:
        super()._write(staging, step, {**mine, "generators": simple_manager._get_generators()})


class FillsTheBufferTooEarly(SavesInItsGroup):
    """One buffer for all saves: the next one fills it, and then waits for the one before."""

    _buffer: dict[str, torch.Tensor] | None = None

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._buffer is not None:
            tensors = super(SavesInItsGroup, self)._tensors()
            for name, kept in self._buffer.items():
                kept.copy_(tensors[name].detach())
        super().save(*args, **kwargs)
        self._buffer = dict(self._copied)

    def _copy(self, name: str, value: torch.Tensor) -> torch.Tensor:
        kept = (self._buffer or {}).get(name)
        return super()._copy(name, value) if kept is None else kept.copy_(value)
