"""Where a restarted job continues."""

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
    """The checkpoint to resume from, verified in full: the one that ``load()`` would choose.

    Collective where torch.distributed is initialised; rank 0 decides and all ranks verify a share
    of the files. ``latest`` comes first; if it is damaged, the newest checkpoint that verifies. For
    the thread that trains, before or after a manager is made.

    Args:
        dir: The checkpoint directory, ``config.dir``.

    Returns:
        The same path on every rank, or None where no checkpoint was ever committed.

    Raises:
        NoUsableCheckpointError: There are checkpoints and none can be used; starting over in
            silence would lose the run.
        UnreadableCheckpointError: One that may be the newest cannot be read at present, or the
            directory itself; it may be whole, so nothing older is taken.
        NewerFormatError: It was written by a newer version of this package.
        PeerLostError: A rank is dead, or hung beyond the deadline (600 s a round).
        UnreachableDirectoryError: The directory is there by name and cannot be looked into.
        ValueError: ``dir`` is empty, a URL, or names a variable that is not set.
    """
    root = local_directory(dir)
    collective = make_collective(timeout_s=DEFAULT_COMMIT_TIMEOUT_S)
    runtime = rank_runtime(root, collective)
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
