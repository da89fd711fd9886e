"""Time by the clock of the run, for managers that are wrong because they wait too long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from harness.system.clock import UndelayedClock, descendants

_TICK_S = 0.1


def sleep_s(seconds: float) -> None:
    """Sleep until the supervisor, which does not count what a loaded machine takes, has counted it.

    It may take longer: more processes are asked how long they waited than the supervisor asks.
    """
    clock = UndelayedClock(_everyone)
    while clock.seconds() < seconds:
        time.sleep(_TICK_S)


def _everyone() -> list[int]:
    """The ranks and what is below them, and all that is above them, with the supervisor."""
    job_launcher = os.getppid()
    return [*descendants(job_launcher), *_above(os.getpid())]


def _above(process: int) -> Iterator[int]:
    while process > 1:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        process = int(status.rpartition(")")[2].split()[1])
        if process:
            yield process
