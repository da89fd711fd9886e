"""Announcements from one start of a job to the next, through the job's store."""

import hashlib
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.format.manifest import Head
from kempnerforge.checkpoint.protocol.effects import Announced

__all__ = ["StoreBoard"]

logger = logging.getLogger(__name__)

# torch has no public name for the store that the job was started with.
_c10d: Any = dist.distributed_c10d
_ME = secrets.token_hex(8)


class StoreBoard:
    """Announcements in the store of torch.distributed, if it is initialised."""

    def announce(self, root: Path, head: Head) -> None:
        store = _lasting_store()
        if store is None:
            return
        word = {"step": head.step, "sequence": head.sequence, "save_id": head.save_id, "by": _me()}
        try:
            store.set(_key(root), json.dumps(word))
        except RuntimeError as error:
            logger.debug("the store of the job is gone: %s", error)

    def last(self, root: Path) -> Announced | None:
        store = _lasting_store()
        try:
            if store is None or not store.check([_key(root)]):
                return None
            word = json.loads(store.get(_key(root)))
            if word["by"] == _me():  # its own announcement says nothing new
                return None
            return Announced(
                step=int(word["step"]), sequence=int(word["sequence"]), save_id=str(word["save_id"])
            )
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            logger.debug("the store of the job has no announcement for %s: %s", root, error)
            return None


def _me() -> str:
    return f"{_ME}-{os.getpid()}"


def _key(root: Path) -> str:
    return f"kempnerforge/published/{hashlib.sha256(str(root).encode()).hexdigest()[:16]}"


def _lasting_store() -> Any:
    """Returns the job's store without the prefixes of this start; None if there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    store = _c10d._get_default_store()
    while isinstance(store, _c10d.PrefixStore):
        store = store.underlying_store
    return store
