"""A manager whose shutdown handler asks the clock of its rank."""

from __future__ import annotations

import time

from tests.harness import simple_manager
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path

_LIMIT_S = 1800.0


class StopsByItsOwnClock(SimpleManager):
    """Each rank stops when half an hour has passed by its own clock."""


class ShutdownHandler(simple_manager.ShutdownHandler):
    """Asks the clock of this rank, and then all."""

    def register(self) -> None:
        super().register()
        self._until_s = time.time() + _LIMIT_S

    def should_shutdown(self) -> bool:
        return super().should_shutdown() or time.time() > self._until_s
