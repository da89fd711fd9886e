"""How the harness's FUSE file system differs from the directory that it passes on.

Fault model: a mount of a real file system that lacks a feature, or a client that does not
immediately see what another client did. Each field is one deviation. With all of them off, the
mount is coherent with the directory below it, keeps every feature, and shares neither locks nor
caches with other mounts.

What must survive: everything that was acknowledged to a job. A save can be refused because a
feature is missing, with an error that says so, and a load can wait. Out of scope: bytes of a file
that another mount is writing to (a server that passes on reads returns them as they are), and a
server that dies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direct = Literal["works", "refused", "kept"]
Flock = Literal["local", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Deviations of one mount from the directory below it. Times are in seconds.

    `stale_s`: names and attributes come from a listing of the directory that can be this old; a
    change to a directory through this mount discards the listing at once (as in sshfs). `late_s`: a
    name that another mount created appears only after this time, and until then a replaced name
    leads to what it led to before. `cache_s`: the kernel caches entries, also absent ones, and
    attributes for this long, and only time ends it (as `entry_timeout` of libfuse).

    `symlinks` False: EPERM (vfat, object stores). `exchange` False: EINVAL for a swap of two names
    (NFS, Lustre). `directory_renames` False: EXDEV for directories (overlayfs with lower layers).
    `direct`: an open with O_DIRECT is `refused` with EINVAL, or the flag is `kept` after F_SETFL
    took it away, so that unaligned writes answer EINVAL (mergerfs). `flock`: `local` to this mount,
    or `refused` with ENOSYS when a file is to be locked (Lustre without `flock`); the lock of a
    directory is always granted by the kernel, which asks no FUSE server. `follows_links` False: a
    symlink that a rename replaces keeps its old text for this mount, which has no hard links by
    which another name could reveal it (s3fs).
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
