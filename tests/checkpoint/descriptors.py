"""Lists what the open descriptors of this process lead to.

Their number alone says little, because earlier tests leave some to threads that are still ending
and to the garbage collector.
"""

import contextlib
import os
from pathlib import Path


def links() -> list[str]:
    """One a descriptor."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, as that of the listing is
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def sockets() -> set[str]:
    """Each under a name that no other one has."""
    return {link for link in links() if link.startswith("socket:")}


def below(directory: Path) -> list[str]:
    """Open files of a directory."""
    return [link for link in links() if link.startswith(f"{directory.resolve()}/")]
