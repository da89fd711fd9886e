"""The checkpoint manager under test, and the names that a training loop uses beside it.

`module:Name` names the manager. A module with its own version of one of the companions below
(another checkpointer's shutdown handler, say) takes precedence; otherwise the name comes from its
home in `kempnerforge`. Imports are lazy, because a rank must not import the package before
`sys.path` leads to the one under test.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from harness.plan.model import Implementation

HOMES = {
    "resolve_resume_path": "kempnerforge.resilience.elastic",
    "ShutdownHandler": "kempnerforge.resilience.signal_handler",
    "ResumableDataLoader": "kempnerforge.checkpoint",
    "CheckpointConfig": "kempnerforge.config.schema",
    "AsyncCheckpointMode": "kempnerforge.config.schema",
    "DynamicCheckpointWindow": "kempnerforge.config.schema",
    "FreezeSpec": "kempnerforge.config.schema",
    "FreezeStage": "kempnerforge.config.schema",
    "VLMConfig": "kempnerforge.config.schema",
    "apply_freeze_specs": "kempnerforge.training.freeze",
    "canonical_freeze_meta": "kempnerforge.training.freeze",
    "effective_freeze": "kempnerforge.training.freeze",
}


class Tools:
    """The source of the training loop's checkpoint manager and the manager's companions."""

    def __init__(self, implementation: Implementation) -> None:
        module, separator, name = implementation.name.partition(":")
        if not separator or not module or not name:
            raise ValueError(
                f"an implementation is named `module:Name`, found {implementation.name!r}"
            )
        self._module = module
        self._manager = name
        if implementation.path is not None:
            sys.path.insert(0, implementation.path)

    @property
    def manager(self) -> Any:
        """Returns the class of the manager, whose type is unknown here by design."""
        return getattr(importlib.import_module(self._module), self._manager)

    def find(self, name: str) -> Any:
        """Returns a companion: the implementation's own, or else the one of `kempnerforge`."""
        own = importlib.import_module(self._module)
        if hasattr(own, name):
            return getattr(own, name)
        return getattr(importlib.import_module(HOMES[name]), name)
