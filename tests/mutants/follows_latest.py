"""A manager whose module brings a rule of its own for where to resume."""

from __future__ import annotations

from pathlib import Path

from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager


class FollowsLatestOnly(SimpleManager):
    """Without a `latest` that leads somewhere, everything begins anew."""


def resolve_resume_path(directory: str) -> str | None:
    latest = Path(directory) / "latest"
    return str(latest.resolve()) if latest.is_dir() else None
