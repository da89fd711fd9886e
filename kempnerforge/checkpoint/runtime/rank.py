"""Builds the runtime of a rank of a job."""

from dataclasses import replace
from pathlib import Path

from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.runtime.board import StoreBoard
from kempnerforge.checkpoint.runtime.identity import DirectoryIdentity
from kempnerforge.checkpoint.runtime.lock import DirectoryAccess
from kempnerforge.checkpoint.runtime.process import local_runtime
from kempnerforge.checkpoint.runtime.stale import RetryingStorage
from kempnerforge.checkpoint.runtime.storage import LocalStorage

__all__ = ["rank_runtime"]


def rank_runtime(root: Path, *, rank: int, world_size: int, follow: bool = False) -> Runtime:
    """Returns the runtime of a rank for a checkpoint directory.

    Args:
        root: The checkpoint directory.
        rank: This rank.
        world_size: The number of ranks that take part.
        follow: Whether to continue with a directory that was moved.
    """
    access = DirectoryAccess(root)
    return replace(
        local_runtime(RetryingStorage(LocalStorage()), access),
        rank=rank,
        world_size=world_size,
        identity=DirectoryIdentity(root, access, follow=follow),
        board=StoreBoard(),
    )
