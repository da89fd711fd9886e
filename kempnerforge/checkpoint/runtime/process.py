"""The effects of this process."""

import secrets

from kempnerforge.checkpoint.collection import held_back
from kempnerforge.checkpoint.protocol.effects import Runtime, Unlocked, WriteAccess
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.runtime.clock import SystemClock
from kempnerforge.checkpoint.runtime.storage import at_once

__all__ = ["THIS_PROCESS", "draw_id", "local_runtime"]


def draw_id() -> str:
    """16 hexadecimal digits from the operating system; draws from no generator of training."""
    return secrets.token_hex(8)


THIS_PROCESS = ProcessMemory(draw_id, building=held_back)


def local_runtime(storage: Storage, access: WriteAccess | None = None) -> Runtime:
    """The effects of a process that agrees with nobody, such as a command.

    Args:
        storage: Where the checkpoint directory lies.
        access: Its lock; None where nobody else can reach it, or it is held already.
    """
    return Runtime(
        storage=storage,
        clock=SystemClock(),
        process=THIS_PROCESS,
        access=access or Unlocked(),
        at_once=at_once,
    )
