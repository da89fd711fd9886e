"""The mount that a directory lies on, and what follows from its type.

How far a lock reaches:

``flock`` succeeds on almost every file system, and excludes only what goes through the same kernel,
or even the same mount, on most of those that several hosts share: NFS keeps locks on directories to
itself, every FUSE file system that has no locks of its own leaves them to the kernel, Lustre and
CIFS do so by mount option. No call tells the two kinds apart, so the type of the file system does:

- Where all access passes through this kernel, ``flock`` on the directory excludes everybody.
- NFS turns ``flock`` on a file into a lock on the server, unless the mount says otherwise
  (``local_lock``, ``nolock``).
- Of everything else nothing is assumed, whatever it may be able to do.

Whether a change by another machine may be seen late: a client of NFS, SMB or FUSE answers from what
it remembers, for seconds. One that keeps its files on this machine has nothing to remember, and
neither has one whose machines tell each other of each change.

Out of scope: a directory that one job uses on its file system, as on the server, while another
reaches it through a network or FUSE file system above. The latter leaves a lease, which the former
respects if it comes later. Where the former was there before, its lock is seen on its own host
only.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["Mount", "Reach", "may_lag", "mount_of"]

# A block device or memory of this kernel, mounted by it. Also overlay: its upper directory is in
# use by one mount, and what another host writes to the lower ones is undefined. And fuseblk: FUSE
# on a block device, which the kernel opens for one mount alone.
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
    """By a lock on the directory."""
    by_file = "by file"
    """Everybody by a lock on a file, and only this host by one on a directory."""
    unknown = "unknown"
    """Perhaps only this host, or this mount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The mount that a directory lies on."""

    type: str
    """As in ``/proc/self/mountinfo``; empty where that does not show it."""
    source: str = ""
    root: str = ""
    """The directory of the file system that is mounted there."""
    point: str = ""
    options: frozenset[str] = frozenset()
    """Of the file system; as the kernel shows them."""

    @property
    def reach(self) -> Reach:
        """How far locks reach there."""
        if self.type in _OF_THIS_KERNEL:
            return Reach.everybody
        shared = "local_lock=none" in self.options and "nolock" not in self.options
        return Reach.by_file if self.type in _NFS and shared else Reach.unknown

    @property
    def keeps_inodes(self) -> bool:
        """Whether a directory has the same inode after a remount."""
        return not self.type.startswith("fuse")

    def is_same(self, other: "Mount") -> bool:
        """Whether the same was mounted, wherever; not known counts as another."""
        mine, its = ((one.type, one.source, one.root) for one in (self, other))
        return mine == its and self.type != ""

    def __str__(self) -> str:
        return f"{self.type} {self.source} at {self.point}"


def may_lag(path: Path) -> bool:
    """Whether what is at ``path`` may be seen late; so for every file system that is not known."""
    try:
        fd = os.open(path, _LOOKING)
    except OSError:  # there is nothing, or nobody may look
        return False
    try:
        return mount_of(fd).type not in _OF_THIS_KERNEL | _COHERENT
    finally:
        os.close(fd)


def mount_of(fd: int) -> Mount:
    """The mount that an open file or directory lies on."""
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        wanted = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except (OSError, StopIteration, IndexError):
        return Mount(type="")
    return next((_parse(line) for line in mounts if line.split()[0] == wanted), Mount(type=""))


def _parse(line: str) -> Mount:
    """A line of mountinfo, as proc(5) has them: optional fields end with a hyphen."""
    fields = line.split(" ")
    kind, source, options = fields[fields.index("-", 6) + 1 :][:3]
    return Mount(
        type=kind,
        source=source,
        root=fields[3],
        point=fields[4],
        options=frozenset(options.split(",")),
    )
