"""A manager whose module brings a shutdown handler that takes its time."""

from __future__ import annotations

from tests.harness import simple_manager
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path
from tests.mutants import clock


class WaitsBeforeItSaves(SimpleManager):
    """After SIGTERM the job waits longer than a scheduler does before it saves."""


class ShutdownHandler(simple_manager.ShutdownHandler):
    """Lets things settle first."""

    def should_shutdown(self) -> bool:
        asked = super().should_shutdown()
        if asked:
            clock.sleep_s(8.0)
        return asked
