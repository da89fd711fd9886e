"""A file system in memory that dies and loses power: the crash model of the package's tests.

What is modelled: a process is killed before any operation that changes something, or in the middle
of a write, which leaves a shorter file; the machine loses power, and every directory goes back to
some state between its last sync and now. What must survive: files whose write returned, and names
whose directory was synced since. Directories forget independently of each other, in whole
operations, in order. Out of scope: file systems that reorder operations within one directory, and
damage at rest.
"""

import errno
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.storage import Stamp, Storage

MOST_LINKS = 20


class Death(BaseException):
    """The process is gone; no handler of the package takes this for an error."""


class File:
    version = 0

    def __init__(self, data: bytes) -> None:
        self.data = data


class Link:
    version = 0

    def __init__(self, target: str) -> None:
        self.target = target


class Directory:
    """Names, and every state of them since the last sync; the first is the durable one."""

    def __init__(self) -> None:
        self.version = 0
        self.names: dict[str, Node] = {}
        self.history: list[dict[str, Node]] = [{}]

    def changed(self) -> None:
        self.version += 1
        self.history.append(dict(self.names))

    def synced(self) -> None:
        self.history = [dict(self.names)]


Node = File | Link | Directory


class MemoryStorage(Storage):
    """:class:`Storage` without a disk.

    Attributes:
        exchanges: Whether two names can be swapped at once.
        lives: Operations until :class:`Death`; negative for ever.
        until_error: Operations until one fails for want of space; negative for ever.
        watcher: Called after every change.
        lags: Whether the package is to mind that another machine's changes may be seen late.
    """

    def __init__(self, *, exchanges: bool = True) -> None:
        self.top = Directory()
        self.exchanges = exchanges
        self.lives = -1
        self.until_error = -1
        self.watcher: Callable[[], None] | None = None
        self.lags = False

    def cut_power(self, choose: Callable[[int], int]) -> None:
        """Forget. ``choose(n)`` says which of n states of a directory is left, 0 the oldest."""
        top = _after_power_cut(self.top, choose)
        assert isinstance(top, Directory)
        self.top = top

    def power_cuts(self, directory: Path) -> Iterator[Directory]:
        """``directory`` after each power cut that its own history allows.

        What is below has forgotten either all that it may or nothing.
        """
        for state in self._directory(directory).history:
            for choose in (_oldest, _newest):
                lost = Directory()
                lost.names = {name: _after_power_cut(node, choose) for name, node in state.items()}
                yield lost

    def names(self, directory: Path) -> tuple[str, ...]:
        try:
            return tuple(sorted(self._directory(directory).names))
        except FileNotFoundError:
            return ()

    def scan(self, directory: Path) -> Mapping[str, int]:
        try:
            return {name: id(node) for name, node in self._directory(directory).names.items()}
        except FileNotFoundError:
            return {}

    def read(self, path: Path) -> bytes:
        node = self._follow(path)[1]
        if isinstance(node, Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        assert isinstance(node, File)
        return node.data

    def size(self, path: Path) -> int:
        node = self._follow(path)[1]
        return len(node.data) if isinstance(node, File) else 0

    def stamp(self, path: Path) -> Stamp | None:
        try:
            node = self._node(path)
        except OSError:
            return None
        return 0, id(node), 0, node.version, node.version

    def stamps(self, directory: Path, files: Sequence[str]) -> Sequence[Stamp | None]:
        return [self.stamp(directory / file) for file in files]

    def is_directory(self, path: Path) -> bool:
        try:
            return isinstance(self._node(path), Directory)
        except OSError:
            return False

    def read_link(self, path: Path) -> str | None:
        try:
            node = self._node(path)
        except OSError:
            return None
        return node.target if isinstance(node, Link) else None

    def resolve(self, path: Path) -> Path | None:
        try:
            return self._follow(path)[0]
        except OSError:
            return None

    def read_small(self, path: Path, most_bytes: int) -> bytes | None:
        try:
            node = self._node(path)
        except OSError:
            return None
        return node.data if isinstance(node, File) and len(node.data) <= most_bytes else None

    def checksum(self, path: Path) -> FileRecord:
        data = self.read(path)
        return FileRecord(size=len(data), crc32=zlib.crc32(data))

    def make_directory(self, path: Path) -> None:
        there = self._directory(path.parent).names.get(path.name)
        if isinstance(there, File):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._live()
        if there is None:
            self._add(path, Directory())

    def make_durable_directory(self, path: Path) -> None:
        missing = [folder for folder in (path, *path.parents) if self.resolve(folder) is None]
        self._live()
        for folder in reversed(missing):
            self._add(folder, Directory())
        for folder in missing:
            self.sync_directory(folder.parent)

    def write(self, path: Path, data: bytes) -> FileRecord:
        if self.lives == 0:
            self._add(path, File(data[: len(data) // 2]))
        self._live()
        self._add(path, File(bytes(data)))
        return FileRecord(size=len(data), crc32=zlib.crc32(data))

    def sync_directory(self, path: Path) -> None:
        self._live()
        self._directory(path).synced()

    def rename(self, source: Path, target: Path) -> None:
        node = self._node(source)
        there = self._directory(target.parent).names.get(target.name)
        if isinstance(there, Directory) and not isinstance(node, Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if isinstance(there, Directory) and there.names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(target))
        if isinstance(node, Directory) and there is not None and not isinstance(there, Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))
        self._live()
        assert source.parent == target.parent, "the package renames within one directory"
        parent = self._directory(source.parent)
        del parent.names[source.name]
        parent.names[target.name] = node
        self._changed(parent)

    def exchange(self, one: Path, other: Path) -> bool:
        nodes = self._node(one), self._node(other)
        if not self.exchanges:
            return False
        self._live()
        assert one.parent == other.parent, "the package swaps within one directory"
        parent = self._directory(one.parent)
        parent.names[other.name], parent.names[one.name] = nodes
        self._changed(parent)
        return True

    def make_link(self, path: Path, target: str) -> None:
        if path.name in self._directory(path.parent).names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        self._live()
        self._add(path, Link(target))

    def make_name(self, path: Path, existing: Path) -> None:
        if path.name in self._directory(path.parent).names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        node = self._node(existing)
        self._live()
        self._add(path, node)

    def unlink(self, path: Path) -> None:
        names = self._directory(path.parent).names
        if isinstance(names.get(path.name), Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        self._live()
        if names.pop(path.name, None) is not None:
            self._changed(self._directory(path.parent))

    def remove_tree(self, path: Path) -> None:
        """One operation a name, so that a death in between leaves half a tree."""
        parent = self._directory(path.parent)
        node = parent.names.get(path.name)
        if node is None:
            return
        if isinstance(node, File):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        if isinstance(node, Directory):
            for name, child in list(node.names.items()):
                if isinstance(child, Directory):
                    self.remove_tree(path / name)
                else:
                    self.unlink(path / name)
        self._live()
        del parent.names[path.name]
        self._changed(parent)

    def may_change(self, directory: Path) -> bool:
        return True

    def may_lag(self, path: Path) -> bool:
        return self.lags

    def note(self, directory: Path, name: str) -> bytes | None:
        return None

    def leave_note(self, directory: Path, name: str, note: bytes) -> None:
        """This one takes none."""

    def _live(self) -> None:
        if self.lives == 0:
            raise Death
        self.lives -= 1
        self.until_error -= 1
        if self.until_error == -1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _add(self, path: Path, node: Node) -> None:
        parent = self._directory(path.parent)
        parent.names[path.name] = node
        self._changed(parent)

    def _changed(self, directory: Directory) -> None:
        directory.changed()
        if self.watcher is not None:
            self.watcher()

    def _directory(self, path: Path) -> Directory:
        node = self._follow(path)[1]
        if not isinstance(node, Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return node

    def _node(self, path: Path) -> Node:
        """What is at ``path`` itself, links followed in its parents only."""
        return self._find(path.parts[1:], follow_last=False)[1]

    def _follow(self, path: Path) -> tuple[Path, Node]:
        real, node = self._find(path.parts[1:], follow_last=True)
        return Path("/", *real), node

    def _find(self, parts: tuple[str, ...], *, follow_last: bool) -> tuple[tuple[str, ...], Node]:
        pending, links = list(reversed(parts)), 0
        real: list[str] = []
        nodes: list[Node] = [self.top]
        while pending:
            part = pending.pop()
            if part == "..":
                nodes, real = nodes[: max(1, len(nodes) - 1)], real[:-1]
                continue
            parent = nodes[-1]
            if not isinstance(parent, Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), part)
            node = parent.names.get(part)
            if node is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/".join(parts))
            if isinstance(node, Link) and (pending or follow_last):
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part)
                pending.extend(reversed(Path(node.target).parts))
                continue
            nodes.append(node)
            real.append(part)
        return tuple(real), nodes[-1]


def _after_power_cut(node: Node, choose: Callable[[int], int]) -> Node:
    if not isinstance(node, Directory):
        return node
    lost = Directory()
    left = node.history[choose(len(node.history))]
    lost.names = {name: _after_power_cut(child, choose) for name, child in left.items()}
    lost.synced()
    return lost


def _oldest(states: int) -> int:
    return 0


def _newest(states: int) -> int:
    return states - 1
