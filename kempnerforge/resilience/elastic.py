"""Finds the checkpoint from which a restarted job continues."""

from dataclasses import replace
from pathlib import Path

from kempnerforge.checkpoint.bulk.trust import PLAIN_DATA
from kempnerforge.checkpoint.deadlines import DEFAULT_COMMIT_TIMEOUT_S
from kempnerforge.checkpoint.protocol.choosing import Search, choose
from kempnerforge.checkpoint.runtime.collective import GlooCollective, make_collective
from kempnerforge.checkpoint.runtime.directories import local_directory
from kempnerforge.checkpoint.runtime.driver import carry_out
from kempnerforge.checkpoint.runtime.guarded import guarded
from kempnerforge.checkpoint.runtime.rank import rank_runtime
from kempnerforge.checkpoint.runtime.worker import Worker

__all__ = ["resolve_resume_path"]


def resolve_resume_path(dir: str | Path) -> Path | None:  # the documented name
    """Returns the checkpoint to resume from, fully verified: the one that ``load()`` would choose.

    Prefers ``latest``; if it is damaged, takes the newest checkpoint that verifies. Collective if
    torch.distributed is initialised: rank 0 decides, and every rank verifies a part of the files.
    To be called by the training thread, before or after a manager is created.

    Args:
        dir: The checkpoint directory, ``config.dir``.

    Returns:
        The same path on every rank, or None if no checkpoint was ever committed.

    Raises:
        NoUsableCheckpointError: There are checkpoints, but none is usable; starting from scratch
            without an error would lose the run.
        UnreadableCheckpointError: The directory, or a checkpoint that may be the newest, cannot be
            read at present. It may be whole, so no older one is taken.
        NewerFormatError: The checkpoint was written by a newer version of this package.
        PeerLostError: A rank died, or hung beyond the deadline (600 s per round).
        UnreachableDirectoryError: The directory exists but cannot be listed.
        ValueError: ``dir`` is empty, a URL, or names an environment variable that is not set.
    """
    root = local_directory(dir)
    collective = make_collective(timeout_s=DEFAULT_COMMIT_TIMEOUT_S)
    runtime = rank_runtime(root, rank=collective.rank, world_size=collective.world_size)
    try:
        with Worker("resolving a checkpoint") as worker:
            storage = guarded(runtime.storage, runtime.access.confirm_brief)
            search = Search(root=root, shards=PLAIN_DATA)
            choosing = choose(
                search, replace(runtime, storage=storage), timeout_s=DEFAULT_COMMIT_TIMEOUT_S
            )
            choice = carry_out(choosing, collective, worker)
    finally:
        if isinstance(collective, GlooCollective):
            collective.close()
    return None if choice is None else choice.path
