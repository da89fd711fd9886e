"""A manager whose module brings a rule of its own for where to resume."""

from __future__ import annotations

from pathlib import Path

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager


class TakesTheHighestStep(SimpleManager):
    """An operator who points `latest` at an older step is not heard."""


def resolve_resume_path(directory: str) -> str | None:
    committed = simple_manager._committed(Path(directory))
    return str(max(committed, key=simple_manager._step)) if any(Path(directory).iterdir()) else None
