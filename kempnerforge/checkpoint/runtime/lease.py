"""A lease: who may change a directory where no lock is known to reach every host.

It is a file in the directory, ``.lease-<generation>``. Who made the one with the highest generation
has the directory, as long as the file is there. The protocol:

take      create ``.lease-<n+1>`` exclusively, n being the generation found, or 0. One of several
          takers succeeds, on NFS and through FUSE too. Then look again: the one that was found must
          be unchanged and none higher, or what was made is withdrawn. Then remove those below.
renew     a thread writes the file in place, with a number that grows, every :data:`BEAT_S`.
confirm   before every rename, swap of ``latest`` and removal, the holder opens its file anew: it
          has to be there, and be its own, and no next generation may be. Else the lease is lost,
          for good: nothing more is changed by its holder.
end       the file is removed.

A lease is taken over from a holder that is gone: at once where the process was one of this host
(and of this container) and is not there any more, and after :data:`LEASE_S` seconds without a
renewal otherwise (:mod:`lease_watch`). Removing the old file is what makes the takeover visible to
a holder that lives after all: opening a file asks the server on every network file system, listing
a directory may not.

Fault model: a process is killed, stopped and continued, or cut off from storage, at any instant;
storage is slow or fails; a host vanishes. What must hold: of two holders at most one finds its
lease confirmed. What is left is one operation: one that was confirmed and then delayed, in the
holder or on its way, beyond the whole takeover. By then the next holder has removed staging
directories and links of the old one, so that such an operation finds nothing to publish.

Out of scope: file systems on which exclusive creation is not exclusive, or an opened file is not
the present one (9p with ``cache=loose``); virtual machines that are copied while they run, and so
have one boot id and process numbers in common.
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
"""Between two renewals."""
LEASE_S = 30.0
"""Without a renewal after which a holder counts as dead: six that did not come."""

_NAME = re.compile(r"\.lease-([1-9][0-9]*)", re.ASCII)
_PROBE = re.compile(r"\.probe-[0-9a-f]{16}", re.ASCII)
_ID_BYTES = 16
# One size for ever, so that a renewal overwrites all of what was there; a page of memory at most.
_RECORD_BYTES = 1024
# For the removal of the file at the end; the thread that does it dies with the process anyway.
_END_S = 5.0

_held: set[str] = set()
"""Ids of the leases of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLease:
    """A lease as it was read."""

    generation: int
    path: Path
    content: bytes
    """Empty where its holder died, or is, between creating and writing it."""
    modified_ns: int
    """Shows a renewal where a mount keeps to what it once read."""

    @property
    def id(self) -> str:
        """Of the lease, whoever has it; empty where it says nothing."""
        return self.content[:_ID_BYTES].decode(errors="replace")

    def life(self, me: Process) -> Life:
        """Whether the holder lives, as far as it can be told without watching it.

        A lease of this process that this process does not know was left by the program that
        started this one in its place, or could not be removed.
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
            return "a process that did not write who it is"
        return f"process {holder.pid} on {holder.host} since {since}"


class LeaseTakenError(Exception):
    """Somebody else was quicker, or lives."""

    def __init__(self, found: FoundLease | None) -> None:
        super().__init__(str(found))
        self.found = found
        """The other holder's lease, as far as it can be seen."""


def is_lease_name(name: str) -> bool:
    """Whether a file of that name is a lease, or what a watch tries writing with."""
    return _NAME.fullmatch(name) is not None or _PROBE.fullmatch(name) is not None


def format_probe() -> str:
    """Name of a file that a watch writes and removes again."""
    return f".probe-{secrets.token_hex(8)}"


def came_within(seconds: float, end: "SimpleQueue[None]") -> bool:
    """Whether the end was told, waiting for it so long."""
    try:
        end.get(timeout=seconds)
    except Empty:
        return False
    return True


def find(root: Path) -> FoundLease | None:
    """The lease that counts in ``root``, or None where there is none.

    Raises:
        OSError: That cannot be seen.
    """
    for generation in sorted(_generations(root), reverse=True):
        with suppress(FileNotFoundError):  # given back meanwhile, or long ago, by an old listing
            return _look_at(root, generation)
    return None


def take(root: Path, *, instead_of: FoundLease | None) -> "Lease":
    """Have a lease of ``root`` of one's own.

    Args:
        root: The directory.
        instead_of: The lease that :func:`find` found, whose holder is known to be gone.

    Raises:
        LeaseTakenError: Somebody else has one, or is taking one.
        OSError: The file cannot be made.
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
            kept.remove()  # or that is what would be found
            raise LeaseTakenError(find(root))
        if instead_of is not None:
            _remove(instead_of.path)
        _clear_below(root, generation)
    except BaseException:
        kept.remove()
        raise
    return Lease(root, generation, kept)


class Lease:
    """One's own lease, renewed from construction until :meth:`end`, the last reference or exit."""

    def __init__(self, root: Path, generation: int, kept: "_Kept") -> None:
        self.path = kept.path
        self._kept = kept
        self._next = _path(root, generation + 1)
        self._end = weakref.finalize(self, kept.end)
        kept.start()

    def loss(self) -> str | None:
        """The job that has the directory instead, in words; None while this lease holds.

        Raises:
            OSError: That cannot be seen.
        """
        if self._kept.lost is None and not self._kept.is_there():
            self._kept.lost = "its file was removed"
        if self._kept.lost is None:
            self._kept.renew_without_thread()
        if self._kept.lost is None and _is_there(self._next):
            self._kept.lost = f"{self._next.name} has been made"
        if self._kept.lost is None:
            return None
        with suppress(OSError):
            found = find(self.path.parent)
            if found is not None and found.id != self._kept.id:
                return f"{found} has taken it over"
        return self._kept.lost

    def end(self) -> None:
        """Give the directory back."""
        self._end()

    def disown(self) -> None:
        """In a forked child: the lease stays with the parent."""
        self._end.detach()
        self._kept.lost = "it belongs to the process that forked this one"


class _Kept:
    """The file of a lease and the thread that renews it; has no reference to the lease."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = secrets.token_hex(_ID_BYTES // 2)
        self.lost: str | None = None
        self._process = Process.this()
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._beats = 0
        # Not an event, whose lock a garbage collection within a wait would wait for.
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
        except RuntimeError as error:  # the interpreter ends, or no more threads may be
            logger.warning("%s is renewed by saves only: %s", self.path, error)

    def renew_without_thread(self) -> None:
        """Renews the lease where no thread does."""
        if not self._thread.ident:
            self._beat()

    def is_there(self) -> bool:
        """Whether the file is the one that was made."""
        try:
            return _read(self.path)[0][:_ID_BYTES] == self.id.encode()
        except FileNotFoundError:
            return False

    def end(self) -> None:
        self._ending.put(None)
        if not self._thread.ident:
            self.remove()
        elif self._thread is not threading.current_thread():  # a garbage collection may be there
            self._thread.join(_END_S)
            if self._thread.is_alive():
                logger.warning("%s stays: storage does not answer", self.path)

    def remove(self) -> None:
        try:
            if self.is_there():
                self.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s stays: %s", self.path, error)
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
        """Opened anew, and never created: a file that somebody has removed stays away."""
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
    """The id, a checksum of the rest, and the rest: one line, padded with spaces."""
    text = json.dumps({**asdict(process), "since": since, "renewed": beats})
    rest = text.encode().ljust(_RECORD_BYTES - _ID_BYTES - 11)
    return f"{lease_id} {zlib.crc32(rest):08x} ".encode() + rest + b"\n"


def _decode(content: bytes) -> tuple[Process | None, str]:
    """The holder of a lease, and since when; None if it does not say, or was half written."""
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
    """Content and time of the last change, of now and not of when this host last read it."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with named(path):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return os.read(fd, _RECORD_BYTES), os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def _is_passed(root: Path, generation: int) -> bool:
    """Whether there is a later one: by the listing, which may be old, or by the next names."""
    following = {generation + number for number in (1, 2, 3)}
    later = {other for other in _generations(root) if other > generation}
    return any(_is_there(_path(root, other)) for other in later | following)


def _is_there(path: Path) -> bool:
    """Opened, because a name that was looked up is remembered for a while after it is gone."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except FileNotFoundError:
        return False
    except PermissionError:  # of another user, who may keep it to himself
        return True
    return True


def _is_unchanged(found: FoundLease | None) -> bool:
    """Whether what was judged to be left behind is as it was, or gone."""
    if found is None:
        return True
    try:
        return _read(found.path) == (found.content, found.modified_ns)
    except FileNotFoundError:
        return True


def _clear_below(root: Path, generation: int) -> None:
    """Remove older leases, so that their holders see it, and what watches left."""
    older = [_path(root, other) for other in _generations(root) if other < generation]
    with os.scandir(root) as entries:
        probes = [Path(entry.path) for entry in entries if _PROBE.fullmatch(entry.name)]
    for path in (*older, *probes):
        _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # of another user, in a directory where only owners remove
        logger.warning("%s stays: %s", path, error)
