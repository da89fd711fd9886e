"""Whether a process was killed or has ended, while the kernel still takes down what it had."""

from __future__ import annotations

import signal
from pathlib import Path

_PF_EXITING = 0x4
_PENDING = ("SigPnd:", "ShdPnd:")
_SIGKILL = 1 << (signal.SIGKILL - 1)


def is_dying(process: int) -> bool:
    """Whether a process, or a thread of one, will not return to its program any more.

    Its end can take long: a process forked from one with a CUDA context has 1.5 GB.
    """
    try:
        # In this order: a process that is no longer about to die at the second look has begun to.
        status = Path(f"/proc/{process}/status").read_text(errors="replace").splitlines()
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return True
    flags = int(stat.rpartition(")")[2].split()[6])
    waiting = [int(line.split()[1], 16) for line in status if line.startswith(_PENDING)]
    return bool(flags & _PF_EXITING) or any(mask & _SIGKILL for mask in waiting)
