"""File systems that show late what another machine has changed.

A client of NFS, SMB or FUSE answers from what it remembers: names that were not there when it last
looked, sizes, listings, targets of links, for seconds. One that keeps its files on this machine has
nothing to remember, and neither has one whose machines tell each other of each change.
"""

import ctypes
import os
from pathlib import Path

__all__ = ["may_lag"]

_LOCAL = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0x858458F6,  # ramfs
        0xF2F52010,  # f2fs
        0x2FC12FC1,  # zfs
        0x4D44,  # vfat
        0x2011BAB0,  # exfat
        0x7366746E,  # ntfs3
        0x794C7630,  # overlayfs
        0xCA451A4E,  # bcachefs
    }
)
_COHERENT = frozenset(
    {
        0x0BD00BD0,  # Lustre
        0x00C36400,  # Ceph
        0x47504653,  # GPFS
        0x01161970,  # GFS2
        0x7461636F,  # OCFS2
    }
)
_STATFS_BYTES = 256
_MASK = 0xFFFFFFFF


def may_lag(path: Path) -> bool:
    """Whether what is at ``path`` may be seen late; so for every file system that is not known."""
    kind = _kind_of(path)
    return kind is not None and kind not in _LOCAL | _COHERENT


def _kind_of(path: Path) -> int | None:
    """``f_type`` of ``statfs``; None where that cannot be asked."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if not hasattr(libc, "statfs") or libc.statfs(os.fsencode(path), found) != 0:
        return None
    return ctypes.c_long.from_buffer(found).value & _MASK
