"""Gives new files the group permissions of the checkpoint directory.

A team that shares a directory makes it group-writable, often with setgid. The usual umask (022)
removes the group's write permission from everything created in it, so a colleague could neither
continue the run nor delete old checkpoints. Hence a new file or directory gets the group bits of
its parent directory, if that is group-writable and both belong to the same group. No permission is
ever removed, and none is given to other users. If a directory has a default ACL, the kernel applies
that instead.
"""

import errno
import logging
import os
import stat
from pathlib import Path

__all__ = ["share"]

logger = logging.getLogger(__name__)

_DEFAULT_ACL = "system.posix_acl_default"
# The file system has no modes, or this user cannot change the file (root_squash).
_KEEPS_ITS_OWN = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EROFS}
)


def share(made: int | Path, *, like: Path) -> None:
    """Gives group permissions to a file or directory that this process has just created.

    If the file system refuses, nothing changes.

    Args:
        made: Path or descriptor.
        like: The directory in which it was created.

    Raises:
        OSError: The storage does not respond.
    """
    above = like.stat()
    if not above.st_mode & stat.S_IWGRP:
        return
    found = os.stat(made)  # noqa: PTH116  # also takes a descriptor
    given = above.st_mode & (0o070 if stat.S_ISDIR(found.st_mode) else 0o060)
    wanted = stat.S_IMODE(found.st_mode) | given
    if wanted == stat.S_IMODE(found.st_mode) or found.st_gid != above.st_gid:
        return
    if _has_default_acl(like):
        return
    try:
        os.chmod(made, wanted)  # noqa: PTH101  # also takes a descriptor
    except OSError as error:
        if error.errno not in _KEEPS_ITS_OWN:
            raise
        logger.info("files in %s do not get its group permissions: %s", like, error.strerror)


def _has_default_acl(directory: Path) -> bool:
    try:
        return bool(os.getxattr(directory, _DEFAULT_ACL))
    except OSError:  # no ACL, or not supported by this file system
        return False
