"""Announces the newest published checkpoint to the next start, through the job's store.

A client with a stale cache sees an old state of the directory that looks complete: nothing in it
says that there is a newer checkpoint. A store that outlives the ranks does. So rank 0 records the
sequence of each commit in the store that torch.distributed was started with, without the key
prefixes of one start. A later start that finds less in the directory waits for that commit.

Today only a store provided by the user outlives the ranks. Rank 0's store ends with it, and ranks
that torch's agent restarts on a surviving store do not get this far (docs/launchers.md).
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
    """As :func:`visibility.look_afresh`, including what an earlier start has announced.

    Raises:
        UnreadableCheckpointError: Also if an announced checkpoint does not become visible.
        OSError: The directory cannot be listed.
    """
    found, announced = visibility.look_afresh(root, runtime), runtime.board.last(root)
    return found if announced is None else _await_announced(found, announced, runtime)


def _await_announced(found: Outline, announced: Announced, runtime: Runtime) -> Outline:
    """Returns ``found``, or a later listing, that shows the announced commit or a later one.

    If changes are never seen late, a missing checkpoint was deleted, and is not waited for.

    Raises:
        UnreadableCheckpointError: It does not become visible, so others may not be the newest.
    """
    storage, clock = runtime.storage, runtime.clock
    for pause_s in (*visibility.PAUSES_S, None):
        if not storage.may_lag(found.root) or _is_there(found, announced, storage):
            return found
        if pause_s is None or 2 * pause_s > clock.seconds_left():
            break
        logger.warning(
            "%s does not show step %d, which was published; looking again in %s s",
            found.root,
            announced.step,
            pause_s,
        )
        clock.sleep(pause_s)
        found = visibility.look_afresh(found.root, runtime)
    raise UnreadableCheckpointError(
        f"{found.root} does not show step {announced.step}, which was published according to the "
        f"job's store (commit {announced.sequence}), nor anything newer; nothing older is taken: "
        "try again, or name a checkpoint",
        path=str(found.root),
    )


def _is_there(found: Outline, announced: Announced, storage: Storage) -> bool:
    own = layout.format_step(announced.step)
    for name in sorted(found.steps, key=lambda name: name != own):  # the most likely first
        entry = look_at(found.root / name, storage, heads=True)
        if entry is not None and entry.sequence >= announced.sequence:
            return True
    return False
