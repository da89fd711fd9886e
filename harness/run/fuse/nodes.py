"""The files that a mount shows: by node, each held open without being read, and by name.

A node is one inode, whatever it is called, so that locks within a mount conflict as they should. It
is released when the kernel has forgotten it and no listing holds it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass, field

from harness.run.fuse.behaviour import Behaviour
from harness.run.fuse.wire import ROOT_ID

_NS = 1_000_000_000
_O_PATH = getattr(os, "O_PATH", 0o10000000)
Inode = tuple[int, int]


@dataclass(slots=True, kw_only=True)
class FileNode:
    """One inode. `held` counts the kernel's lookups, and the listings that contain it.

    `called` is the directory and the name by which it was last found. `attributes` are valid until
    `until_s`.
    """

    number: int
    own: int
    inode: Inode
    held: int = 0
    writers: int = 0
    called: tuple[Inode, str] | None = None
    attributes: os.stat_result | None = None
    until_s: float = 0.0
    look: Look | None = None

    @property
    def path(self) -> str:
        """A path that leads to it, whatever it is called and wherever it is."""
        return f"/proc/self/fd/{self.own}"

    def status(self) -> os.stat_result:
        """Returns the attributes from the file system below."""
        return os.stat(self.own)

    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.status().st_mode)


@dataclass(slots=True, kw_only=True)
class Look:
    """A cached listing of a directory, and when it expires."""

    names: dict[str, FileNode]
    until_s: float


@dataclass(slots=True, kw_only=True)
class Nodes:
    """All nodes of one mount, and what its client sees by name."""

    behaviour: Behaviour
    by_number: dict[int, FileNode] = field(default_factory=dict)
    _by_inode: dict[Inode, FileNode] = field(default_factory=dict)
    _next: int = ROOT_ID
    _own_names: set[tuple[Inode, str, Inode]] = field(default_factory=set)
    _made_s: dict[tuple[Inode, str, Inode], float] = field(default_factory=dict)
    _texts: dict[tuple[Inode, str], str] = field(default_factory=dict)

    # Nodes.

    def add_root(self, path: str) -> None:
        """Add the directory below the mount, which is always held."""
        self._take(os.open(path, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)).held += 1

    def _take(self, own: int) -> FileNode:
        """Returns the node of an inode that was opened."""
        status = os.stat(own)
        inode = (status.st_dev, status.st_ino)
        known = self._by_inode.get(inode)
        if known is not None:
            os.close(own)
            return known
        node = FileNode(number=self._next, own=own, inode=inode)
        self._next += 1
        self._by_inode[inode] = self.by_number[node.number] = node
        return node

    def forget(self, node: FileNode, times: int) -> None:
        """Release it for the kernel, or for a listing that expired."""
        node.held -= times
        if node.held > 0:
            return
        self.drop_look(node)
        os.close(node.own)
        del self._by_inode[node.inode], self.by_number[node.number]

    # Names.

    def find(self, directory: FileNode, name: str) -> FileNode:
        """Look up a name for this mount. Raises FileNotFoundError."""
        if self._remembers:
            found = self.seen(directory).get(name)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        else:
            found = self._open(directory, name)
        found.called = (directory.inode, name)
        return found

    def listing(self, directory: FileNode) -> list[tuple[str, int, int]]:
        """Returns names in a directory for this mount, with inodes and modes, sorted."""
        if self._remembers:
            names = sorted(self.seen(directory).items())
            return [(name, node.inode[1], node.status().st_mode) for name, node in names]
        with os.scandir(directory.path) as entries:
            return sorted(
                (one.name, one.inode(), one.stat(follow_symlinks=False).st_mode) for one in entries
            )

    @property
    def _remembers(self) -> bool:
        return self.behaviour.stale_s > 0 or self.behaviour.late_s > 0

    def seen(self, directory: FileNode) -> dict[str, FileNode]:
        """Returns the names of a directory, from a listing as old as the mount allows."""
        look = directory.look
        if look is None or time.monotonic() >= look.until_s:
            look = self._look(directory)
        return look.names

    def _look(self, directory: FileNode) -> Look:
        shown = directory.look.names if directory.look is not None else {}
        names = {}
        for name in os.listdir(directory.path):
            try:
                node = self._open(directory, name)
            except FileNotFoundError:
                continue
            if self._is_late(directory, name, node):
                self._let_go_unheld(node)
                if name not in shown:
                    continue
                node = shown[name]
            names[name] = node
        now = time.monotonic()
        look = Look(names=names, until_s=now + self.behaviour.stale_s)
        for node in names.values():
            node.held += 1
        self.drop_look(directory)
        directory.look = look
        for node in names.values() if self.behaviour.stale_s else ():
            self.believe(node, until_s=look.until_s)
        return look

    def _is_late(self, directory: FileNode, name: str, node: FileNode) -> bool:
        """Whether another mount created the name too recently."""
        key = (directory.inode, name, node.inode)
        if not self.behaviour.late_s or key in self._own_names:
            return False
        given_s = self._made_s.setdefault(key, node.status().st_ctime_ns / _NS)
        return time.time() < given_s + self.behaviour.late_s

    def _let_go_unheld(self, node: FileNode) -> None:
        node.held += 1
        self.forget(node, 1)

    def drop_look(self, directory: FileNode) -> None:
        """Forget everything that was seen in a directory."""
        look, directory.look = directory.look, None
        for node in look.names.values() if look is not None else ():
            node.attributes = None
            self.forget(node, 1)

    def _open(self, directory: FileNode, name: str) -> FileNode:
        flags = _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        return self._take(os.open(name, flags, dir_fd=directory.own))

    def changed(self, directory: FileNode, *given: str) -> None:
        """Record that this mount changed names of a directory, and which ones it created."""
        directory.attributes = None
        if not self.behaviour.late_s:
            self.drop_look(directory)
            return
        for name in given:
            status = os.stat(name, dir_fd=directory.own, follow_symlinks=False)
            self._own_names.add((directory.inode, name, (status.st_dev, status.st_ino)))
        # At once, so that whatever others replace from now on can still be seen.
        self._look(directory)

    # Attributes and texts of links.

    def believe(self, node: FileNode, *, until_s: float) -> None:
        """Cache the attributes that a node has now, unless it is being written to."""
        if node.writers == 0:
            node.attributes, node.until_s = node.status(), until_s

    def attributes(self, node: FileNode) -> os.stat_result:
        """Returns the attributes of a node for this mount."""
        if not self.behaviour.stale_s or node.writers:
            return node.status()
        if node.attributes is None or time.monotonic() >= node.until_s:
            self.believe(node, until_s=time.monotonic() + self.behaviour.stale_s)
        return node.attributes or node.status()

    def text(self, node: FileNode) -> str:
        """Returns the target of a symlink for this mount."""
        found = os.readlink("", dir_fd=node.own)
        if self.behaviour.follows_links or node.called is None:
            return found
        return self._texts.setdefault(node.called, found)

    def unlinked(self, directory: FileNode, name: str) -> None:
        """Record that a name was removed through this mount."""
        self._texts.pop((directory.inode, name), None)
