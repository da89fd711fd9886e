"""A manager that waits for the dead."""

from __future__ import annotations

import time
from typing import Any

from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class WaitsForTheDead(SimpleManager):
    """A save that lost a rank is not given up: its ranks wait until somebody ends them."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().save(*args, **kwargs)
        except Exception:
            time.sleep(3600)
            raise
