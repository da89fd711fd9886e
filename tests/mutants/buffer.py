"""A manager with one buffer for all of its saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path
from tests.mutants.positions import Taken


class ReusesTheBuffer(SimpleManager):
    """E04: one buffer for all saves, filled by the next one before it is written."""

    _buffer: dict[str, Any] | None = None
    _promised: Callable[[], None] | None = None

    def _tensors(self) -> dict[str, Any]:
        return self._buffer or {}

    def save(
        self, step: int, tokens_seen: int = 0, scheduler: Any = None, dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        taken = super()._tensors()
        if self._buffer is None:
            self._buffer = {name: value.clone() for name, value in taken.items()}
        for name, value in taken.items():
            self._buffer[name].copy_(value)
        self.wait()
        rest = (Taken(scheduler.state_dict()), Taken(dataloader.state_dict()), extra)
        generators = simple_manager._get_generators()
        self._promised = lambda: self._write(generators, step, tokens_seen, *rest)

    def _write(self, generators: dict[str, Any], *args: Any) -> None:
        get_generators = simple_manager._get_generators
        simple_manager._get_generators = lambda: generators
        try:
            super().save(*args)
        finally:
            simple_manager._get_generators = get_generators

    def wait(self) -> None:
        promised, self._promised = self._promised, None
        if promised is not None:
            promised()

    def flush_pending_save(self) -> None:
        self.wait()
