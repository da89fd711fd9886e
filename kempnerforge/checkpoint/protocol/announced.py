"""The newest published checkpoint, told through the job's store to whoever starts next.

A directory that a client sees as it was some seconds ago looks whole: nothing in it says that there
is a newer checkpoint. A store that outlives the ranks does. So rank 0 leaves the sequence of each
commit in the store that torch.distributed was started with, without the prefixes that one start
gives its keys, and a later start that finds less in the directory waits for it.

Only a store of the user's own outlives the ranks today. That of rank 0 ends with it, and ranks that
torch's agent starts again on a store that lives on do not get as far as this (docs/launchers.md).
"""

import logging
from pathlib import Path

from kempnerforge.checkpoint.errors import UnreadableCheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol import visibility
from kempnerforge.checkpoint.protocol.catalog import Outline, look_at
from kempnerforge.checkpoint.protocol.effects import Announced, Runtime
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = ["look_for_newest"]

logger = logging.getLogger(__name__)


def look_for_newest(root: Path, runtime: Runtime) -> Outline:
    """As :func:`visibility.look_afresh`, with what another start has published.

    Raises:
        UnreadableCheckpointError: Also where that is not seen.
        OSError: The directory cannot be listed.
    """
    found, told = visibility.look_afresh(root, runtime), runtime.board.last(root)
    return found if told is None else _await_announced(found, told, runtime)


def _await_announced(found: Outline, told: Announced, runtime: Runtime) -> Outline:
    """``found``, or a later look at the same directory, with what was published or a later commit.

    Where nothing is seen late, a checkpoint that is not there was deleted.

    Raises:
        UnreadableCheckpointError: It is not seen, so what is there may not be the newest.
    """
    storage, clock = runtime.storage, runtime.clock
    for pause_s in (*visibility.PAUSES_S, None):
        if not storage.may_lag(found.root) or _is_there(found, told, storage):
            return found
        if pause_s is None or 2 * pause_s > clock.seconds_left():
            break
        logger.warning(
            "%s does not show step %d, which was published; looking again in %s s",
            found.root,
            told.step,
            pause_s,
        )
        clock.sleep(pause_s)
        found = visibility.look_afresh(found.root, runtime)
    raise UnreadableCheckpointError(
        f"{found.root} does not show step {told.step}, of which the job's store says that it was "
        f"published (commit {told.sequence}), nor anything newer; nothing older is taken: try "
        "again, or name a checkpoint",
        path=str(found.root),
    )


def _is_there(found: Outline, told: Announced, storage: Storage) -> bool:
    own = layout.format_step(told.step)
    for name in sorted(found.steps, key=lambda name: name != own):  # the likeliest first
        entry = look_at(found.root / name, storage, heads=True)
        if entry is not None and entry.sequence >= told.sequence:
            return True
    return False
