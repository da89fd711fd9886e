"""A manager whose module brings a shutdown handler that asks no other rank."""

from __future__ import annotations

from tests.harness import simple_manager
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class EachRankStopsAlone(SimpleManager):
    """L19, O01: the rank that got SIGTERM saves, the others wait for it in the next step."""


class ShutdownHandler(simple_manager.ShutdownHandler):
    """Branches on the local flag."""

    def should_shutdown(self) -> bool:
        return self._asked
