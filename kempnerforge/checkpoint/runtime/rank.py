"""Builds the runtime of a rank of a job."""

from dataclasses import replace
from pathlib import Path

from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.rounds import Rounds
from kempnerforge.checkpoint.runtime.board import StoreBoard
from kempnerforge.checkpoint.runtime.identity import DirectoryIdentity
from kempnerforge.checkpoint.runtime.lock import DirectoryAccess
from kempnerforge.checkpoint.runtime.process import local_runtime
from kempnerforge.checkpoint.runtime.stale import RetryingStorage
from kempnerforge.checkpoint.runtime.storage import LocalStorage

__all__ = ["rank_runtime"]


def rank_runtime(root: Path, rounds: Rounds, *, follow: bool = False) -> Runtime:
    """Returns the runtime of a rank for a checkpoint directory.

    Args:
        root: The checkpoint directory.
        rounds: Agreement with the other ranks.
        follow: Whether to continue with a directory that was moved.
    """
    access = DirectoryAccess(root)
    return replace(
        local_runtime(RetryingStorage(LocalStorage()), access),
        rounds=rounds,
        identity=DirectoryIdentity(root, access, follow=follow),
        board=StoreBoard(),
    )
