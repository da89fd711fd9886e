"""A manager whose shutdown handler does not know the signal that comes before a time limit."""

from __future__ import annotations

import signal

from tests.harness import simple_manager
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class KnowsSigtermAlone(SimpleManager):
    """SIGUSR1 ends the ranks at once, so the emergency save that it asks for is never made."""


class ShutdownHandler(simple_manager.ShutdownHandler):
    """Leaves SIGUSR1 to the kernel."""

    def register(self) -> None:
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
