"""Whoever may change the checkpoint directory may change what we make in it.

A team that shares a directory makes it group-writable, often with setgid. The umask of most
programs (022) takes the group's right to write away from everything below, so a colleague could
neither go on with the run nor delete what it retires. Hence a new file or directory gets the group
bits of the directory that it is made in, where that directory is group-writable and both belong to
one group. Nothing is ever taken away, and nothing given to other users. A directory with a default
ACL says itself what its entries get, and the kernel sees to it.
"""

import errno
import logging
import os
import stat
from pathlib import Path

__all__ = ["share"]

logger = logging.getLogger(__name__)

_DEFAULT_ACL = "system.posix_acl_default"
# The file system keeps no modes, or the file is not ours to change (root_squash).
_KEEPS_ITS_OWN = frozenset(
    {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EROFS}
)


def share(made: int | Path, *, like: Path) -> None:
    """Give the group its part in a file or directory that this process has just made.

    Where the file system refuses that, nothing changes.

    Args:
        made: Path or descriptor.
        like: The directory that it was made in.

    Raises:
        OSError: The storage does not answer.
    """
    above = like.stat()
    if not above.st_mode & stat.S_IWGRP:
        return
    found = os.stat(made)  # noqa: PTH116  # of a descriptor as well
    given = above.st_mode & (0o070 if stat.S_ISDIR(found.st_mode) else 0o060)
    wanted = stat.S_IMODE(found.st_mode) | given
    if wanted == stat.S_IMODE(found.st_mode) or found.st_gid != above.st_gid:
        return
    if _has_default_acl(like):
        return
    try:
        os.chmod(made, wanted)  # noqa: PTH101  # of a descriptor as well
    except OSError as error:
        if error.errno not in _KEEPS_ITS_OWN:
            raise
        logger.info("what is made in %s is not for its group: %s", like, error.strerror)


def _has_default_acl(directory: Path) -> bool:
    try:
        return bool(os.getxattr(directory, _DEFAULT_ACL))
    except OSError:  # there is none, or there are none on this file system
        return False
