"""The mount that a directory lies on, and what its type implies for locks and for visibility.

How far a lock reaches: ``flock`` succeeds on almost every file system. But on most of those that
several hosts share, it excludes only processes under the same kernel, or even on the same mount:
NFS keeps locks on directories local, every FUSE file system without locks of its own leaves them to
the kernel, and Lustre and CIFS do so by mount option. No call distinguishes the two kinds, so the
type of the file system decides:

- If all access passes through this kernel, ``flock`` on the directory excludes everyone.
- NFS turns ``flock`` on a file into a lock on the server, unless the mount options say otherwise
  (``local_lock``, ``nolock``).
- For all other types, locks are not trusted.

Whether a change by another machine can be seen late: clients of NFS, SMB and FUSE answer from their
caches for seconds. A file system with all files on this machine has no such cache, and neither has
one whose machines notify each other of each change.

Out of scope: a directory that one job uses directly on its file system (on the server, say) while
another reaches it through a network or FUSE file system on top. The second job leaves a lease,
which the first respects if it comes later. If the first was there before, its lock is seen only on
its own host.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["Mount", "Reach", "may_lag", "mount_of"]

# A block device or memory, mounted by this kernel. Also overlay, because its upper directory
# belongs to one mount, and writes of another host to the lower ones are undefined behaviour. And
# fuseblk, which is FUSE on a block device that the kernel opens for one mount only.
_OF_THIS_KERNEL = frozenset(
    {
        *("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "reiserfs", "xfs"),
        *("exfat", "fuseblk", "hfsplus", "msdos", "ntfs", "ntfs3", "ubifs", "udf", "ufs", "vfat"),
        *("aufs", "overlay", "ramfs", "rootfs", "tmpfs", "zfs"),
    }
)
_NFS = frozenset({"nfs", "nfs4"})
_COHERENT = frozenset({"ceph", "gfs2", "gpfs", "lustre", "ocfs2"})
_LOOKING = getattr(os, "O_PATH", os.O_RDONLY) | os.O_CLOEXEC


class Reach(StrEnum):
    """The processes that ``flock`` excludes."""

    everybody = "everybody"
    """A lock on the directory excludes everyone."""
    by_file = "by file"
    """A lock on a file excludes everyone; a lock on a directory excludes only this host."""
    unknown = "unknown"
    """A lock may exclude only this host, or only this mount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The mount that a directory lies on."""

    type: str
    """Type as in ``/proc/self/mountinfo``; empty if unknown."""
    source: str = ""
    root: str = ""
    """The directory within the file system that is mounted there."""
    point: str = ""
    options: frozenset[str] = frozenset()
    """Mount options of the file system, as the kernel shows them."""

    @property
    def reach(self) -> Reach:
        """The processes that locks exclude on this mount."""
        if self.type in _OF_THIS_KERNEL:
            return Reach.everybody
        shared = "local_lock=none" in self.options and "nolock" not in self.options
        return Reach.by_file if self.type in _NFS and shared else Reach.unknown

    @property
    def keeps_inodes(self) -> bool:
        """Whether a directory has the same inode after a remount."""
        return not self.type.startswith("fuse")

    def is_same(self, other: "Mount") -> bool:
        """Whether both mount the same storage, at any path; an unknown mount equals no other."""
        mine, its = ((one.type, one.source, one.root) for one in (self, other))
        return mine == its and self.type != ""

    def __str__(self) -> str:
        return f"{self.type} {self.source} at {self.point}"


def may_lag(path: Path) -> bool:
    """Whether changes at ``path`` can be seen late; True for an unknown file system."""
    try:
        fd = os.open(path, _LOOKING)
    except OSError:  # it does not exist, or cannot be opened
        return False
    try:
        return mount_of(fd).type not in _OF_THIS_KERNEL | _COHERENT
    finally:
        os.close(fd)


def mount_of(fd: int) -> Mount:
    """Returns the mount that an open file or directory lies on."""
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        wanted = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except (OSError, StopIteration, IndexError):
        return Mount(type="")
    return next((_parse(line) for line in mounts if line.split()[0] == wanted), Mount(type=""))


def _parse(line: str) -> Mount:
    """Parses a line of mountinfo, see proc(5): a hyphen ends the optional fields."""
    fields = line.split(" ")
    kind, source, options = fields[fields.index("-", 6) + 1 :][:3]
    return Mount(
        type=kind,
        source=source,
        root=fields[3],
        point=fields[4],
        options=frozenset(options.split(",")),
    )
