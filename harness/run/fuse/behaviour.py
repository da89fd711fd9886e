"""How the FUSE file system of the harness differs from the directory that it passes on.

Fault model: a mount of a real file system that lacks a feature, or a client that does not see at
once what another client did. Each field is one deviation; all off, the mount is coherent with the
directory below it, keeps every feature, and shares neither locks nor caches with other mounts.

What must survive: whatever was acknowledged to a job as durable. A save may be refused for want of
a feature, with an error that says so, and a load may wait. Out of scope: bytes of a file that
another mount is writing to (a server that passes on reads gives them as they are), and a server
that dies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direct = Literal["works", "refused", "kept"]
Flock = Literal["local", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Deviations of one mount from the directory below it. Times are in seconds.

    `stale_s`: names and attributes are those of a look at the directory that may be so old; what is
    changed in a directory through this mount ends the look at once (as sshfs does). `late_s`: a
    name that somebody else gave appears so long after, and until then a name that was replaced
    leads to what it led to before. `cache_s`: the kernel believes entries, absent ones too, and
    attributes for that long, and nothing but time ends it (as `entry_timeout` of libfuse).

    `symlinks` False: EPERM (vfat, object stores). `exchange` False: EINVAL for two names that are
    to change places (NFS, Lustre). `directory_renames` False: EXDEV for directories (overlayfs with
    lower layers). `direct`: an open with O_DIRECT is `refused` with EINVAL, or the flag is `kept`
    after F_SETFL took it away, so that unaligned writes answer EINVAL (mergerfs). `flock`: `local`
    to this mount, or `refused` with ENOSYS where a file is to be locked (Lustre without `flock`);
    the lock of a directory the kernel always gives, and asks no FUSE server. `follows_links` False:
    a symlink that is replaced by a rename keeps its old text for this mount, which has no hard
    links by which another name could tell (s3fs).
    """

    stale_s: float = 0.0
    late_s: float = 0.0
    cache_s: float = 0.0
    symlinks: bool = True
    exchange: bool = True
    directory_renames: bool = True
    direct: Direct = "works"
    flock: Flock = "local"
    follows_links: bool = True
