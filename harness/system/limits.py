"""The limits of a process that works for many ranks."""

from __future__ import annotations

import errno
import resource

from harness.system.errors import HarnessError


def raise_descriptor_limit() -> None:
    """Lets this process and its children open as many files as the hard limit allows.

    Watched files get descriptors from 512 up in a rank, and one each in the supervisor.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def raise_if_exhausted(error: OSError) -> None:
    """Raises HarnessError if this process failed, and not what a rank wanted.

    A rank's descriptors do not count against the supervisor's limit. The rank must not get this
    error, and the kernel must not carry the call out unseen.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        raise HarnessError(
            f"the supervisor cannot open another file: {error}; the hard limit of open files "
            f"(`ulimit -Hn`) is {hard}"
        ) from error
