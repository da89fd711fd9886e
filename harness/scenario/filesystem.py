"""Settings of the file system that a scenario's checkpoint directory is mounted from.

filesystem: {stale_s: 2.0, symlinks: false}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.part import Part


class Filesystem(Part):
    """A mount that is incoherent or lacks a feature; with everything left out, a plain mount.

    Each host of a scenario has its own mount. `harness/run/fuse/behaviour.py` says what each
    of them means.
    """

    stale_s: float = Field(
        0.0, ge=0, description="how old the names and attributes that the mount shows can be"
    )
    late_s: float = Field(
        0.0, ge=0, description="how long the names that other hosts create stay invisible"
    )
    cache_s: float = Field(0.0, ge=0, description="how long the kernel caches names and attributes")
    symlinks: bool = Field(default=True, description="false: EPERM")
    exchange: bool = Field(default=True, description="false: EINVAL for a swap of two names")
    directory_renames: bool = Field(default=True, description="false: EXDEV for directories")
    direct: Literal["works", "refused", "kept"] = Field(
        "works", description="O_DIRECT: EINVAL at the open, or for later unaligned writes"
    )
    flock: Literal["local", "refused"] = Field("local", description="within this host, or ENOSYS")
    follows_links: bool = Field(
        default=True, description="false: a replaced symlink still shows its old target"
    )

    @property
    def refuses(self) -> bool:
        """Whether it can make every save fail, because it lacks what saves need."""
        return not (self.symlinks and self.directory_renames and self.follows_links)
