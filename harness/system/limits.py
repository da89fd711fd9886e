"""The limits of a process that works for many ranks."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> None:
    """Lets this process and its children open as many files as the hard limit allows.

    Watched files get descriptors from 512 up in a rank, and one each in the supervisor.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
