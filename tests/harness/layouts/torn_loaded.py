"""A seeded bug: the newest folder is taken, whether or not its `.metadata` is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.harness.layouts.step_manager import ShutdownHandler as ShutdownHandler
from tests.harness.layouts.step_manager import StepManager, _folders, _step_of
from tests.harness.simple_manager import SimpleManager


class TornLoaded(StepManager):
    """Leaves torn folders where they are, and loads them."""

    def __init__(self, *given: Any, **named: Any) -> None:
        SimpleManager.__init__(self, *given, **named)


def resolve_resume_path(directory: str) -> str | None:
    """The folder of the highest step."""
    found = list(_folders(Path(directory)))
    return str(max(found, key=_step_of)) if found else None
