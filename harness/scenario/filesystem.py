"""Settings of the file system that a scenario's checkpoint directory is mounted from.

filesystem: {stale_s: 2.0, symlinks: false}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.part import Part


class Filesystem(Part):
    """A mount that is incoherent, or lacks a feature; all left out, it only is a mount of its own.

    Each host of a scenario has its own mount. `harness/run/fuse/behaviour.py` says what each of
    these stands for.
    """

    stale_s: float = Field(
        0.0, ge=0, description="how old names and attributes may be that the mount shows"
    )
    late_s: float = Field(
        0.0, ge=0, description="how long after they were given names of other hosts appear"
    )
    cache_s: float = Field(
        0.0, ge=0, description="how long the kernel believes names and attributes"
    )
    symlinks: bool = Field(default=True, description="false: EPERM")
    exchange: bool = Field(default=True, description="false: EINVAL where two names change places")
    directory_renames: bool = Field(default=True, description="false: EXDEV for directories")
    direct: Literal["works", "refused", "kept"] = Field(
        "works", description="O_DIRECT: EINVAL at the open, or for what is not aligned from then on"
    )
    flock: Literal["local", "refused"] = Field("local", description="of this host, or ENOSYS")
    follows_links: bool = Field(
        default=True, description="false: a link that was replaced says what it said before"
    )

    @property
    def refuses(self) -> bool:
        """Whether it may make every save fail, because it lacks what saves need."""
        return not (self.symlinks and self.directory_renames and self.follows_links)
