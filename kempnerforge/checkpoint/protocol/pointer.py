"""``latest``: which checkpoint the next start takes, as a symlink or as a small file.

A file system without symlinks (vfat, exfat, most object stores behind FUSE) has a file of that name
instead: one line, the name of a directory beside it. Both are read always, because a directory
changes hands. Which one is written is configured, and a save replaces the one by the other.

A new pointer is made under a hidden name before its checkpoint is published: what can fail for want
of links, of an inode or of a permission fails while nothing has changed. What is left is one
rename. Then the pointer is read back, because some mounts (s3fs) go on serving the old one.

A file counts only if its one line, with its end, is a name of ours. A client that remembers an
older, smaller size of the file would otherwise read ``step_10`` where ``step_100`` is written.
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

# Longer than any name of ours; a larger file is somebody else's.
_MOST_BYTES = 256
# What a pointer that was just replaced is waited for, in case a cache is about to expire.
_PAUSES_S = (0.02, 0.1, 0.4, 1.0)
# What file systems without symlinks answer; EPERM is that of the manual page.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class PointerKind(StrEnum):
    """The form of ``latest`` on disk."""

    link = "link"
    """A relative symlink."""
    file = "file"
    """A file of one line."""


class UnmovedPointerError(OSError):
    """``latest`` was replaced and still names what it named before."""


def read_pointer(root: Path, storage: Storage) -> str | None:
    """The target of ``latest`` as written; None if there is none, or something else."""
    return read_pointer_at(root / layout.LATEST, storage)


def read_pointer_at(path: Path, storage: Storage) -> str | None:
    """As :func:`read_pointer`, for a pointer of any name."""
    target = storage.read_link(path)
    return _in_file(path, storage) if target is None else target


def resolve_pointer(root: Path, storage: Storage) -> Path | None:
    """Where ``latest`` leads with every link followed, or None where it leads nowhere."""
    latest = root / layout.LATEST
    return storage.resolve(follow_file(latest, storage))


def follow_file(path: Path, storage: Storage) -> Path:
    """The target if ``path`` is a file ``latest``; else ``path`` itself."""
    name = _in_file(path, storage) if path.name == layout.LATEST else None
    return path if name is None else path.parent / name


def _in_file(path: Path, storage: Storage) -> str | None:
    data = storage.read_small(path, _MOST_BYTES)
    if data is None or not data.endswith(b"\n"):
        return None
    name = data[:-1].decode("ascii", errors="replace")
    return None if layout.step_of(name) is None else name


def require_possible(root: Path, storage: Storage, kind: PointerKind, *, save_id: str) -> None:
    """Refuse a directory in which ``latest`` cannot be made; for who may change it.

    Nothing is tried where it is a link already.

    Raises:
        UnsupportedStorageError: It is to be a link, and this file system has none.
        OSError: No name can be made there.
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
    """Tells a directory in which nothing can be made from one in which links cannot."""
    name = Leftover(kind=LeftoverKind.staging, step=0, save_id=save_id)
    storage.make_directory(root / layout.format_leftover(name))
    storage.remove_tree(root / layout.format_leftover(name))


def require_possible_if_empty(
    root: Path, storage: Storage, kind: PointerKind, *, save_id: str
) -> None:
    """:func:`require_possible` before anything was ever saved, for who may only want to load.

    Nothing is tried, and nothing said, in a directory that is not there yet, that holds anything,
    or that may not be changed.

    Raises:
        UnsupportedStorageError: As :func:`require_possible`.
    """
    try:
        if storage.stamp(root) is not None and not storage.names(root):
            require_possible(root, storage, kind, save_id=save_id)
    except OSError as error:  # of which the first save has more to say
        logger.debug("%s: whether it has symbolic links is not known: %s", root, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """``latest`` of a directory, as one save or one repair writes it."""

    root: Path
    runtime: Runtime
    save_id: str
    kind: PointerKind = PointerKind.link

    @property
    def storage(self) -> Storage:
        """Where the directory lies."""
        return self.runtime.storage

    @staticmethod
    def as_it_is(root: Path, runtime: Runtime, *, save_id: str) -> "Pointer":
        """One that stays what it is; a link where there is none, or a file if that cannot be."""
        found = Pointer(root=root, runtime=runtime, save_id=save_id)
        kind = found.kind_of_present()
        if found.read() is None:
            try:
                require_possible(root, runtime.storage, kind, save_id=save_id)
            except UnsupportedStorageError:
                kind = PointerKind.file
        return replace(found, kind=kind)

    def read(self) -> str | None:
        """The current target."""
        return read_pointer(self.root, self.storage)

    def kind_of_present(self) -> PointerKind:
        """The kind that is there now; a link if there is none."""
        name = _in_file(self.root / layout.LATEST, self.storage)
        return PointerKind.link if name is None else PointerKind.file

    def prepare(self, target: str) -> None:
        """Make the new one under its hidden name."""
        if self.storage.stamp(self._hidden) is not None:  # of an attempt that was not placed
            self.storage.unlink(self._hidden)
        if self.kind is PointerKind.link:
            self.storage.make_link(self._hidden, target)
        else:
            self.storage.write(self._hidden, target.encode("ascii") + b"\n")

    def place(self, target: str, *, before: str | None) -> None:
        """Put the one that is prepared in its place, durably; a directory there is moved aside.

        Args:
            target: What it was prepared for.
            before: What ``latest`` names.

        Raises:
            UnmovedPointerError: It goes on naming that.
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
        """Make ``latest`` name ``target``, durably; without a target it is taken away."""
        if target:
            before = self.read()
            self.prepare(target)
            self.place(target, before=before)
            return
        self.storage.unlink(self.root / layout.LATEST)
        self.storage.sync_directory(self.root)

    def discard(self) -> None:
        """Remove what was prepared and is not placed, if that can be; else the next save does."""
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
                    "%s names %s, where somebody else has pointed it since it was pointed to %s",
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
            )  # opens it, at which clients look again
        raise UnmovedPointerError(
            f"{self.root / layout.LATEST} names {found or 'nothing'} after it was replaced by one "
            f"that names {target}: this mount does not show it what is written to it"
        )
