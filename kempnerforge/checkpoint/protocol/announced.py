"""The newest published checkpoint, told through the job's store to whoever starts next.

A directory that a client sees as it was some seconds ago looks whole: nothing in it says that there
is a newer checkpoint. A store that outlives the ranks does. So rank 0 leaves the sequence of each
commit in the store that torch.distributed was started with, without the prefixes that one start
gives its keys, and a later start that finds less in the directory waits for it.

Only a store of the user's own outlives the ranks today. That of rank 0 ends with it, and ranks that
torch's agent starts again on a store that lives on do not get as far as this (docs/launchers.md).
"""

import hashlib
import json
import logging
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.errors import UnreadableCheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.manifest import Head
from kempnerforge.checkpoint.protocol import visibility
from kempnerforge.checkpoint.protocol.catalog import Outline, look_at
from kempnerforge.checkpoint.runtime.storage import Storage
from kempnerforge.checkpoint.runtime.worker import seconds_left

__all__ = ["Announced", "announce", "last_announced", "look_for_newest"]

logger = logging.getLogger(__name__)

# The store that the job was started with has no public name.
_c10d: Any = dist.distributed_c10d
_ME = secrets.token_hex(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A checkpoint that was published."""

    step: int
    sequence: int
    save_id: str


def announce(root: Path, head: Head) -> None:
    """Leave word of a checkpoint that is published; nothing where there is no store."""
    store = _lasting_store()
    if store is None:
        return
    word = {"step": head.step, "sequence": head.sequence, "save_id": head.save_id, "by": _me()}
    try:
        store.set(_key(root), json.dumps(word))
    except RuntimeError as error:
        logger.debug("the store of the job is gone: %s", error)


def last_announced(root: Path) -> Announced | None:
    """The last announcement of another process; None without one, or without a store."""
    store = _lasting_store()
    try:
        if store is None or not store.check([_key(root)]):
            return None
        word = json.loads(store.get(_key(root)))
        if word["by"] == _me():  # which has seen what it has published
            return None
        return Announced(
            step=int(word["step"]), sequence=int(word["sequence"]), save_id=str(word["save_id"])
        )
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        logger.debug("the store of the job says nothing of %s: %s", root, error)
        return None


def look_for_newest(root: Path, storage: Storage) -> Outline:
    """As :func:`visibility.look_afresh`, with what another start has published.

    Raises:
        UnreadableCheckpointError: Also where that is not seen.
        OSError: The directory cannot be listed.
    """
    found, told = visibility.look_afresh(root, storage), last_announced(root)
    return found if told is None else _await_announced(found, told, storage)


def _await_announced(found: Outline, told: Announced, storage: Storage) -> Outline:
    """``found``, or a later look at the same directory, with what was published or a later commit.

    Where nothing is seen late, a checkpoint that is not there was deleted.

    Raises:
        UnreadableCheckpointError: It is not seen, so what is there may not be the newest.
    """
    for pause_s in (*visibility.PAUSES_S, None):
        if not storage.may_lag(found.root) or _is_there(found, told, storage):
            return found
        if pause_s is None or 2 * pause_s > seconds_left():
            break
        logger.warning(
            "%s does not show step %d, which was published; looking again in %s s",
            found.root,
            told.step,
            pause_s,
        )
        time.sleep(pause_s)
        found = visibility.look_afresh(found.root, storage)
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


def _me() -> str:
    return f"{_ME}-{os.getpid()}"


def _key(root: Path) -> str:
    return f"kempnerforge/published/{hashlib.sha256(str(root).encode()).hexdigest()[:16]}"


def _lasting_store() -> Any:
    """The job's store without the prefixes of this start; None where there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    store = _c10d._get_default_store()
    while isinstance(store, _c10d.PrefixStore):
        store = store.underlying_store
    return store
