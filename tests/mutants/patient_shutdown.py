"""A manager whose module brings a shutdown handler that waits until all ranks have come."""

from __future__ import annotations

import time
from typing import Any

import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class WaitsForWhoHasLeft(SimpleManager):
    """The ranks meet at their first question, and one that has ended is waited for."""


class ShutdownHandler(simple_manager.ShutdownHandler):
    """Meets through the store of the job, in which a rank that ends leaves no word."""

    _met = False

    def should_shutdown(self) -> bool:
        if not self._met:
            c10d: Any = dist.distributed_c10d
            store = c10d._get_default_store()
            store.add("met", 1)
            while int(store.add("met", 0)) < dist.get_world_size():
                time.sleep(0.01)
            self._met = True
        return super().should_shutdown()
