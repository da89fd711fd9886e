"""``latest``, which names the checkpoint that the next start loads: a symlink or a small file.

On a file system without symlinks (vfat, exfat, most object stores behind FUSE) it is a file of that
name with one line, the name of a directory beside it. Both kinds can always be read, because a
directory can be moved between systems. The configuration decides which kind is written, and a save
replaces one kind by the other.

A new pointer is created under a hidden name before its checkpoint is published, so a lack of link
support, inodes or permission shows before anything has changed. Only one rename remains. Afterwards
the pointer is read back, because some mounts (s3fs) keep serving the old one.

A file counts only if its single line, including the line end, is a name of the package. A client
with an older, smaller size of the file in its cache would otherwise read ``step_10`` instead of
``step_100``.
"""

import errno
import logging
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from kempnerforge.checkpoint.errors import UnsupportedStorageError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = [
    "Pointer",
    "PointerKind",
    "UnmovedPointerError",
    "follow_file",
    "read_pointer",
    "read_pointer_at",
    "require_possible",
    "require_possible_if_empty",
    "resolve_pointer",
]

logger = logging.getLogger(__name__)

# Longer than any name of the package; a larger file is foreign.
_MOST_BYTES = 256
# Time to wait for a pointer that was just replaced, in case a cache is about to expire.
_PAUSES_S = (0.02, 0.1, 0.4, 1.0)
# Errors of file systems without symlinks; EPERM is the one in the manual page.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class PointerKind(StrEnum):
    """The form of ``latest`` on disk."""

    link = "link"
    """A relative symlink."""
    file = "file"
    """A file of one line."""


class UnmovedPointerError(OSError):
    """``latest`` was replaced, but still names what it named before."""


def read_pointer(root: Path, storage: Storage) -> str | None:
    """Returns the target of ``latest`` as written; None if there is no valid pointer."""
    return read_pointer_at(root / layout.LATEST, storage)


def read_pointer_at(path: Path, storage: Storage) -> str | None:
    """As :func:`read_pointer`, for a pointer of any name."""
    target = storage.read_link(path)
    return _in_file(path, storage) if target is None else target


def resolve_pointer(root: Path, storage: Storage) -> Path | None:
    """Returns where ``latest`` leads with every link followed, or None if it leads nowhere."""
    latest = root / layout.LATEST
    return storage.resolve(follow_file(latest, storage))


def follow_file(path: Path, storage: Storage) -> Path:
    """Returns the target if ``path`` is a pointer file, and otherwise ``path`` itself."""
    name = _in_file(path, storage) if path.name == layout.LATEST else None
    return path if name is None else path.parent / name


def _in_file(path: Path, storage: Storage) -> str | None:
    data = storage.read_small(path, _MOST_BYTES)
    if data is None or not data.endswith(b"\n"):
        return None
    name = data[:-1].decode("ascii", errors="replace")
    return None if layout.step_of(name) is None else name


def require_possible(root: Path, storage: Storage, kind: PointerKind, *, save_id: str) -> None:
    """Refuses a directory in which ``latest`` cannot be created; needs the lock.

    Does nothing if ``latest`` is a link already.

    Raises:
        UnsupportedStorageError: A link is configured, but this file system has none.
        OSError: Nothing can be created there.
    """
    if kind is not PointerKind.link or storage.read_link(root / layout.LATEST) is not None:
        return
    probe = root / layout.format_latest_link(save_id)
    try:
        storage.make_link(probe, layout.LATEST)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _require_that_directories_can_be_made(root, storage, save_id)
        raise UnsupportedStorageError(
            f"{root} is on a file system without symbolic links ({error.strerror}), which `latest` "
            'is by default; with latest="file" in the configuration it is a small file that holds '
            "the name of the checkpoint",
            path=str(root),
        ) from error
    storage.unlink(probe)


def _require_that_directories_can_be_made(root: Path, storage: Storage, save_id: str) -> None:
    """Raises if nothing at all can be created in the directory, and not only no links."""
    name = Leftover(kind=LeftoverKind.staging, step=0, save_id=save_id)
    storage.make_directory(root / layout.format_leftover(name))
    storage.remove_tree(root / layout.format_leftover(name))


def require_possible_if_empty(
    root: Path, storage: Storage, kind: PointerKind, *, save_id: str
) -> None:
    """As :func:`require_possible`, before the first save, for a process that may only want to load.

    Does nothing if the directory does not exist, is not empty, or cannot be changed.

    Raises:
        UnsupportedStorageError: See :func:`require_possible`.
    """
    try:
        if storage.stamp(root) is not None and not storage.names(root):
            require_possible(root, storage, kind, save_id=save_id)
    except OSError as error:  # the first save reports it in more detail
        logger.debug("%s: cannot tell whether it has symbolic links: %s", root, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Writes the ``latest`` of a directory, for one save or one repair."""

    root: Path
    runtime: Runtime
    save_id: str
    kind: PointerKind = PointerKind.link

    @property
    def storage(self) -> Storage:
        """The storage of the directory."""
        return self.runtime.storage

    @staticmethod
    def as_it_is(root: Path, runtime: Runtime, *, save_id: str) -> "Pointer":
        """Returns a pointer of the existing kind; without one, a link, or a file if need be."""
        found = Pointer(root=root, runtime=runtime, save_id=save_id)
        kind = found.kind_of_present()
        if found.read() is None:
            try:
                require_possible(root, runtime.storage, kind, save_id=save_id)
            except UnsupportedStorageError:
                kind = PointerKind.file
        return replace(found, kind=kind)

    def read(self) -> str | None:
        """Returns the current target."""
        return read_pointer(self.root, self.storage)

    def kind_of_present(self) -> PointerKind:
        """Returns the kind of the existing pointer; a link if there is none."""
        name = _in_file(self.root / layout.LATEST, self.storage)
        return PointerKind.link if name is None else PointerKind.file

    def prepare(self, target: str) -> None:
        """Creates the new pointer under its hidden name."""
        if self.storage.stamp(self._hidden) is not None:  # left by an attempt that was not placed
            self.storage.unlink(self._hidden)
        if self.kind is PointerKind.link:
            self.storage.make_link(self._hidden, target)
        else:
            self.storage.write(self._hidden, target.encode("ascii") + b"\n")

    def place(self, target: str, *, before: str | None) -> None:
        """Moves the prepared pointer into place, durably; a directory there is renamed.

        Args:
            target: The target it was prepared for.
            before: The present target of ``latest``.

        Raises:
            UnmovedPointerError: ``latest`` still names ``before``.
        """
        latest = self.root / layout.LATEST
        if self.storage.is_directory(latest):
            aside = self.root / f"{layout.LATEST}.aside-{self.save_id}"
            logger.warning("%s is a directory; renamed to %s", latest, aside.name)
            self.storage.rename(latest, aside)
        self.storage.rename(self._hidden, latest)
        self.storage.sync_directory(self.root)
        self._require(target, before)

    def point(self, target: str) -> None:
        """Makes ``latest`` name ``target``, durably; without a target it is removed."""
        if target:
            before = self.read()
            self.prepare(target)
            self.place(target, before=before)
            return
        self.storage.unlink(self.root / layout.LATEST)
        self.storage.sync_directory(self.root)

    def discard(self) -> None:
        """Removes a prepared pointer that was not placed; on failure the next save removes it."""
        try:
            self.storage.unlink(self._hidden)
        except OSError as error:
            logger.debug("left to the next save: %s: %s", self._hidden, error)

    @property
    def _hidden(self) -> Path:
        return self.root / layout.format_latest_link(self.save_id)

    def _require(self, target: str, before: str | None) -> None:
        clock = self.runtime.clock
        for pause_s in (*_PAUSES_S, None):
            found = self.read()
            if found == target:
                return
            if found is not None and found != before:
                logger.warning(
                    "%s names %s: someone has changed it since it was pointed to %s",
                    self.root / layout.LATEST,
                    found,
                    target,
                )
                return
            if pause_s is None or 2 * pause_s > clock.seconds_left():
                break
            clock.sleep(pause_s)
            self.storage.stamps(
                self.root, (layout.LATEST,)
            )  # opening it makes clients refresh their cache
        raise UnmovedPointerError(
            f"{self.root / layout.LATEST} names {found or 'nothing'} after it was replaced by one "
            f"that names {target}: this mount does not show what was written to it"
        )
