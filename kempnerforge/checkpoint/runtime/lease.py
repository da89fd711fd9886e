"""A lease: decides which job may change a directory if no lock is known to reach every host.

It is a file in the directory, ``.lease-<generation>``. The job that created the one with the
highest generation owns the directory, as long as the file exists. The protocol:

take      Create ``.lease-<n+1>`` exclusively, where n is the generation found, or 0. Of several
          takers one succeeds, on NFS and through FUSE too. Then look again: the lease found first
          must be unchanged and none may be higher, otherwise withdraw the new one. Then remove
          all lower ones.
renew     A thread rewrites the file in place, with a growing number, every :data:`BEAT_S`.
confirm   Before every rename, swap of ``latest`` and removal, the holder opens its file again: it
          must exist and be its own, and no next generation may exist. Otherwise the lease is lost
          for good, and its holder changes nothing more.
end       Remove the file.

A lease is taken over from a dead holder: at once if its process was on this host (and in this
container) and is gone, and otherwise after :data:`LEASE_S` seconds without a renewal
(:mod:`lease_watch`). The takeover removes the old file. This is what a holder that is alive after
all notices: on every network file system, opening a file asks the server, while listing a directory
may not.

Fault model: a process is killed, stopped and continued, or cut off from storage, at any instant;
storage is slow or fails; a host vanishes. What must hold: of two holders, at most one finds its
lease confirmed. One operation remains possible: one that was confirmed and then delayed, in the
holder or on its way, until after the takeover. By then the next holder has removed the old one's
staging directories and links, so such an operation finds nothing to publish.

Out of scope: file systems on which exclusive creation is not exclusive, or on which opening a file
can yield a stale one (9p with ``cache=loose``); virtual machines cloned while they run, which share
boot id and process numbers.
"""

import json
import logging
import os
import re
import secrets
import threading
import weakref
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

from kempnerforge.checkpoint.errors import named
from kempnerforge.checkpoint.runtime.processes import Life, Process

__all__ = [
    "BEAT_S",
    "LEASE_S",
    "FoundLease",
    "Lease",
    "LeaseTakenError",
    "came_within",
    "find",
    "format_probe",
    "is_lease_name",
    "take",
]

logger = logging.getLogger(__name__)

BEAT_S = 5.0
"""Seconds between two renewals."""
LEASE_S = 30.0
"""Seconds without a renewal after which a holder counts as dead: six missed renewals."""

_NAME = re.compile(r"\.lease-([1-9][0-9]*)", re.ASCII)
_PROBE = re.compile(r"\.probe-[0-9a-f]{16}", re.ASCII)
_ID_BYTES = 16
# A fixed size, so that a renewal overwrites the whole content; at most a page of memory.
_RECORD_BYTES = 1024
# Time for removing the file at the end; the thread that does it dies with the process anyway.
_END_S = 5.0

_held: set[str] = set()
"""Ids of the leases of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLease:
    """A lease, as read from its file."""

    generation: int
    path: Path
    content: bytes
    """Empty if its holder is, or died, between creating and writing it."""
    modified_ns: int
    """Time of change; shows a renewal even if the mount caches the content."""

    @property
    def id(self) -> str:
        """The id of the lease; empty if the file is empty."""
        return self.content[:_ID_BYTES].decode(errors="replace")

    def life(self, me: Process) -> Life:
        """Returns whether the holder is alive, as far as this is known without watching it.

        A lease of this process that it does not know was left by an earlier program in this process
        (before an exec), or could not be removed.
        """
        holder = _decode(self.content)[0]
        if holder is None:
            return Life.unknown
        if holder == me:
            return Life.alive if self.id in _held else Life.gone
        return holder.life(seen_by=me)

    def __str__(self) -> str:
        holder, since = _decode(self.content)
        if holder is None:
            return "an unidentified process"
        return f"process {holder.pid} on {holder.host} since {since}"


class LeaseTakenError(Exception):
    """Another process was faster, or the holder is alive."""

    def __init__(self, found: FoundLease | None) -> None:
        super().__init__(str(found))
        self.found = found
        """The other holder's lease, if it could be read."""


def is_lease_name(name: str) -> bool:
    """Whether a file of that name is a lease, or the probe file of a watch."""
    return _NAME.fullmatch(name) is not None or _PROBE.fullmatch(name) is not None


def format_probe() -> str:
    """Returns a name for the probe file that a watch writes and removes."""
    return f".probe-{secrets.token_hex(8)}"


def came_within(seconds: float, end: "SimpleQueue[None]") -> bool:
    """Waits up to ``seconds`` for the end; returns whether it came."""
    try:
        end.get(timeout=seconds)
    except Empty:
        return False
    return True


def find(root: Path) -> FoundLease | None:
    """Returns the lease with the highest generation in ``root``, or None if there is none.

    Raises:
        OSError: The directory or the lease cannot be read.
    """
    for generation in sorted(_generations(root), reverse=True):
        with suppress(FileNotFoundError):  # released meanwhile, or the listing is old
            return _look_at(root, generation)
    return None


def take(root: Path, *, instead_of: FoundLease | None) -> "Lease":
    """Takes a lease of ``root`` for this process.

    Args:
        root: The directory.
        instead_of: The lease from :func:`find`, if its holder is known to be dead.

    Raises:
        LeaseTakenError: Another process has the lease, or is taking it.
        OSError: The file cannot be created.
    """
    generation = 1 if instead_of is None else instead_of.generation + 1
    kept = _Kept(_path(root, generation))
    try:
        kept.create()
    except FileExistsError:
        with suppress(FileNotFoundError):
            raise LeaseTakenError(_look_at(root, generation)) from None
        raise LeaseTakenError(None) from None
    try:
        if _is_passed(root, generation) or not _is_unchanged(instead_of):
            kept.remove()  # otherwise others would find it
            raise LeaseTakenError(find(root))
        if instead_of is not None:
            _remove(instead_of.path)
        _clear_below(root, generation)
    except BaseException:
        kept.remove()
        raise
    return Lease(root, generation, kept)


class Lease:
    """This process's lease, renewed until :meth:`end`, the last reference is gone, or exit."""

    def __init__(self, root: Path, generation: int, kept: "_Kept") -> None:
        self.path = kept.path
        self._kept = kept
        self._next = _path(root, generation + 1)
        self._end = weakref.finalize(self, kept.end)
        kept.start()

    def loss(self) -> str | None:
        """Returns why the lease is lost, such as which job took it; None while it holds.

        Raises:
            OSError: The lease cannot be checked.
        """
        if self._kept.lost is None and not self._kept.is_there():
            self._kept.lost = "its file was removed"
        if self._kept.lost is None:
            self._kept.renew_without_thread()
        if self._kept.lost is None and _is_there(self._next):
            self._kept.lost = f"{self._next.name} has been created"
        if self._kept.lost is None:
            return None
        with suppress(OSError):
            found = find(self.path.parent)
            if found is not None and found.id != self._kept.id:
                return f"{found} has taken it over"
        return self._kept.lost

    def end(self) -> None:
        """Releases the directory."""
        self._end()

    def disown(self) -> None:
        """Leaves the lease to the parent; called in a forked child."""
        self._end.detach()
        self._kept.lost = "it belongs to the process that forked this one"


class _Kept:
    """The file of a lease and the thread that renews it; holds no reference to the lease."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = secrets.token_hex(_ID_BYTES // 2)
        self.lost: str | None = None
        self._process = Process.this()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._beats = 0
        # Not an Event: a garbage collection within its wait could need the lock of that same Event.
        self._ending: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._renew, name="checkpoint lease", daemon=True)

    def create(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o666)
        _held.add(self.id)
        try:
            self._write(fd)
        except BaseException:
            self.path.unlink(missing_ok=True)
            _held.discard(self.id)
            raise
        finally:
            os.close(fd)

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:  # the interpreter exits, or the thread limit is reached
            logger.warning("%s is renewed only by saves: %s", self.path, error)

    def renew_without_thread(self) -> None:
        """Renews the lease if there is no thread to do so."""
        if not self._thread.ident:
            self._beat()

    def is_there(self) -> bool:
        """Whether the file is still the one created here."""
        try:
            return _read(self.path)[0][:_ID_BYTES] == self.id.encode()
        except FileNotFoundError:
            return False

    def end(self) -> None:
        self._ending.put(None)
        if not self._thread.ident:
            self.remove()
        elif self._thread is not threading.current_thread():  # a garbage collection can run in it
            self._thread.join(_END_S)
            if self._thread.is_alive():
                logger.warning("%s is not removed: storage does not respond", self.path)

    def remove(self) -> None:
        try:
            if self.is_there():
                self.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s is not removed: %s", self.path, error)
        _held.discard(self.id)

    def _renew(self) -> None:
        while not came_within(BEAT_S, self._ending):
            try:
                self._beat()
            except FileNotFoundError:
                self.lost = "its file was removed"
            except OSError as error:
                logger.warning("%s cannot be renewed: %s; trying again", self.path, error)
            if self.lost is not None:
                logger.error("%s is lost: %s; this job saves no more", self.path, self.lost)
                return
        self.remove()

    def _beat(self) -> None:
        """Opens the file again, but never creates it: a file that was removed stays removed."""
        fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.pread(fd, _ID_BYTES, 0) == self.id.encode():
                self._write(fd)
            else:
                self.lost = "its file belongs to another process"
        finally:
            os.close(fd)

    def _write(self, fd: int) -> None:
        self._beats += 1
        data = _encode(self.id, self._process, since=self._since, beats=self._beats)
        with named(self.path):
            done = os.pwrite(fd, data, 0)
            if done != len(data):
                raise OSError(f"{done} of {len(data)} bytes were written")
            os.fsync(fd)


def _encode(lease_id: str, process: Process, *, since: str, beats: int) -> bytes:
    """Returns one line, padded with spaces: the id, a checksum of the rest, and the rest."""
    text = json.dumps({**asdict(process), "since": since, "renewed": beats})
    rest = text.encode().ljust(_RECORD_BYTES - _ID_BYTES - 11)
    return f"{lease_id} {zlib.crc32(rest):08x} ".encode() + rest + b"\n"


def _decode(content: bytes) -> tuple[Process | None, str]:
    """Returns the holder of a lease, and since when; no holder if the content is incomplete."""
    try:
        rest = content[_ID_BYTES + 10 : -1]
        if int(content[_ID_BYTES + 1 : _ID_BYTES + 9], 16) != zlib.crc32(rest):
            return None, ""
        found = json.loads(rest)
        since, _ = str(found.pop("since")), found.pop("renewed")
        return Process(**found), since
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, ""


def _path(root: Path, generation: int) -> Path:
    return root / f".lease-{generation}"


def _look_at(root: Path, generation: int) -> FoundLease:
    path = _path(root, generation)
    content, modified_ns = _read(path)
    return FoundLease(generation=generation, path=path, content=content, modified_ns=modified_ns)


def _generations(root: Path) -> list[int]:
    with os.scandir(root) as entries:
        hidden = (entry.name for entry in entries if entry.name[0] == ".")
        matches = map(_NAME.fullmatch, hidden)
        return [int(match[1]) for match in matches if match]


def _read(path: Path) -> tuple[bytes, int]:
    """Returns the current content and time of change, not those in this host's cache."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with named(path):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return os.read(fd, _RECORD_BYTES), os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def _is_passed(root: Path, generation: int) -> bool:
    """Whether a later one exists, by the listing (which can be old) or by the next names."""
    following = {generation + number for number in (1, 2, 3)}
    later = {other for other in _generations(root) if other > generation}
    return any(_is_there(_path(root, other)) for other in later | following)


def _is_there(path: Path) -> bool:
    """Whether the file exists; opens it, because a cached name outlives the file for a while."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's private file
        return True
    return True


def _is_unchanged(found: FoundLease | None) -> bool:
    """Whether the lease that was judged dead is unchanged, or gone."""
    if found is None:
        return True
    try:
        return _read(found.path) == (found.content, found.modified_ns)
    except FileNotFoundError:
        return True


def _clear_below(root: Path, generation: int) -> None:
    """Removes older leases, so that their holders notice, and probe files of watches."""
    older = [_path(root, other) for other in _generations(root) if other < generation]
    with os.scandir(root) as entries:
        probes = [Path(entry.path) for entry in entries if _PROBE.fullmatch(entry.name)]
    for path in (*older, *probes):
        _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # another user's file in a sticky directory
        logger.warning("%s is not removed: %s", path, error)
