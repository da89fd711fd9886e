"""A manager that saves, after a signal, what was there when the signal came."""

from __future__ import annotations

from typing import Any

from tests.harness import simple_manager
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class SavesTheInstantOfTheSignal(SimpleManager):
    """The generators are those of the instant of the signal, such as an evaluation's own."""


class ShutdownHandler(simple_manager.ShutdownHandler):
    """Keeps the generators for the save that follows."""

    def _note(self, number: int, frame: Any) -> None:
        if not self._asked:
            kept = simple_manager._get_generators()
            simple_manager._get_generators = lambda: kept
        super()._note(number, frame)
