"""Other effects than those of this machine, for a manager or for a call."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from kempnerforge.checkpoint.manager import CheckpointManager
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.protocol.register import Register
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.process import draw_id, local_runtime


class AnotherJob(ProcessMemory):
    """Knows no saves but its own; of all jobs here, it sees which saves are under way."""

    _under_way_anywhere: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__(draw_id)

    def is_under_way(self, save_id: str) -> bool:
        return save_id in self._under_way_anywhere

    @contextmanager
    def under_way(self, save_id: str) -> Generator[None, None, None]:
        self._under_way_anywhere.add(save_id)
        try:
            with super().under_way(save_id):
                yield
        finally:
            self._under_way_anywhere.discard(save_id)


def give(manager: CheckpointManager, **effects: Any) -> None:
    """Have a manager act through these from now on, by the names that :class:`Runtime` has."""
    manager._runtime = replace(manager._runtime, **effects)
    if "process" in effects:
        manager._register = Register(effects["process"])


def runtime(storage: Storage, **effects: Any) -> Runtime:
    """The effects of a process that agrees with nobody, on this storage."""
    return replace(local_runtime(storage), **effects)
