"""Builds the runtime of a process that is not part of a job."""

import secrets

from kempnerforge.checkpoint.collection import held_back
from kempnerforge.checkpoint.protocol.effects import Runtime, Unlocked, WriteAccess
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.clock import SystemClock
from kempnerforge.checkpoint.runtime.storage import at_once

__all__ = ["THIS_PROCESS", "draw_id", "local_runtime"]


def draw_id() -> str:
    """Returns 16 random hexadecimal digits; draws from no generator that training uses."""
    return secrets.token_hex(8)


THIS_PROCESS = ProcessMemory(draw_id, building=held_back)


def local_runtime(storage: Storage, access: WriteAccess | None = None) -> Runtime:
    """Returns the runtime of a single process, such as a command.

    Args:
        storage: The storage of the checkpoint directory.
        access: The directory's lock; None if no other process can reach the directory, or the lock
            is held already.
    """
    return Runtime(
        storage=storage,
        clock=SystemClock(),
        process=THIS_PROCESS,
        access=access or Unlocked(),
        at_once=at_once,
    )
