"""A manager whose module brings a shutdown handler that waits for another signal."""

from __future__ import annotations

import signal

from tests.harness import simple_manager
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class PassesOverSigterm(SimpleManager):
    """O04: SIGTERM is ignored, because SIGUSR1 is expected to come."""


class ShutdownHandler(simple_manager.ShutdownHandler):
    """Notes SIGUSR1 only."""

    def register(self) -> None:
        super().register()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
