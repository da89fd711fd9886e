"""The Python stacks of a rank, which it writes when it is asked to, even if it hangs.

The signal is one that no library uses. Its handler is faulthandler's, in C: it needs neither the
interpreter's lock nor a main thread that gets back to Python.
"""

from __future__ import annotations

import faulthandler
import signal
from pathlib import Path

REQUEST = signal.SIGRTMAX - 3
"""The signal that asks for them."""


def stacks_of(folder: Path, rank: int) -> Path:
    """Returns the file for a rank's stacks, in the folder of a run."""
    return folder / f"rank{rank}.stacks"


def write_on_request(path: Path) -> None:
    """Has this process write the stacks of all its threads there at each request."""
    file = path.open("w", encoding="utf-8")  # faulthandler keeps it open
    faulthandler.register(REQUEST, file=file, all_threads=True)


def read_stacks(path: Path) -> str:
    """Returns what a process wrote there; empty if it never did."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
