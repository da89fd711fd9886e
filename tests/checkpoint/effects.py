"""Other effects than those of this machine, for a manager or for a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.register import Register
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.process import local_runtime


def give(manager: CheckpointManager, **effects: Any) -> None:
    """Have a manager act through these from now on, by the names that :class:`Runtime` has."""
    manager._runtime = replace(manager._runtime, **effects)
    if "process" in effects:
        manager._register = Register(effects["process"])


def runtime(storage: Storage, **effects: Any) -> Runtime:
    """The effects of a process that agrees with nobody, on this storage."""
    return replace(local_runtime(storage), **effects)
