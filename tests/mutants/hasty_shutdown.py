"""A manager whose module brings a shutdown handler that is done too early."""

from __future__ import annotations

from tests.harness import simple_manager
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class StopsListeningTooEarly(SimpleManager):
    """L18: the handlers are gone while the save is still being written."""


class ShutdownHandler(simple_manager.ShutdownHandler):
    """Gives the handlers back as soon as the loop knows."""

    def should_shutdown(self) -> bool:
        asked = super().should_shutdown()
        if asked:
            self.finish()
        return asked
