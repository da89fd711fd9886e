"""The checkpoint directory itself: whether it can be looked into, or is not there yet.

One that is not there yet is a clean start. One whose name leads nowhere is not: a link whose
storage is not mounted would otherwise count as empty, and the run would begin again.
"""

import errno
import os
from pathlib import Path

from kempnerforge.checkpoint.errors import UnreachableDirectoryError
from kempnerforge.checkpoint.storage import Storage

__all__ = ["require_reachable"]

# What another look does not change; every other error is that of the storage.
_FINAL = frozenset(
    {errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL}
)


def require_reachable(root: Path, storage: Storage) -> None:
    """Refuse a checkpoint directory that is there by name and cannot be listed; not collective.

    Raises:
        UnreachableDirectoryError: ``root``, or the nearest directory above it that has a name, is a
            link that leads nowhere or in a circle, is no directory, or may not be entered.
        OSError: The storage does not say.
    """
    try:
        if not storage.names(root):
            _require_nothing_in_the_way(root, storage)
    except OSError as error:
        if error.errno not in _FINAL:
            raise
        raise _unreachable(root, os.strerror(error.errno)) from error


def _require_nothing_in_the_way(root: Path, storage: Storage) -> None:
    for path in (root, *root.parents):
        real = storage.resolve(path)
        if real is not None:
            if not storage.is_directory(real):
                raise _unreachable(root, f"{path} is no directory")
            return
        target = storage.read_link(path)
        if target is not None:
            raise _unreachable(
                root, f"{path} is a link to {target}, which leads nowhere; is its storage mounted?"
            )


def _unreachable(root: Path, reason: str) -> UnreachableDirectoryError:
    return UnreachableDirectoryError(
        f"the checkpoint directory {root} cannot be looked into: {reason}", path=str(root)
    )
