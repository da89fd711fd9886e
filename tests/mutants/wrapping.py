"""Managers that take the names that wrappers give to parameters for the parameters' own."""

from __future__ import annotations

from typing import Any

from torch import nn

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.state import global_names
from kempnerforge.resilience.elastic import resolve_resume_path as resolve_resume_path
from kempnerforge.resilience.signal_handler import ShutdownHandler as ShutdownHandler


class KeepsTheModulePrefix(CheckpointManager):
    """What DDP holds is saved under `module.`, where no other arrangement looks for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        global_names.unwrapped = lambda model: model
        global_names.plain_name = lambda model, name: name
        super().__init__(*args, **kwargs)


class PassesOverWrappedNames(CheckpointManager):
    """T01: what was saved under a name with other prefixes is passed over, as by `strict=False`."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        kwargs["extra"] = {**kwargs["extra"], "names": [name for name, _ in self._named()]}
        super().save(*args, **kwargs)

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        first = {name: param.detach().clone() for name, param in self._named()}
        result = super().load(*args, **kwargs)
        for name, param in self._named():
            if name not in result[2]["names"]:
                param.detach().copy_(first[name])
        return result

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return list(self._model.named_parameters())
