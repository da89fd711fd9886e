"""A file system in memory that replays operations.

It shows what the next process sees after a kill, which loses nothing that was written.
`harness.disk.disk` tracks what of it is durable. An operation `cut` replaces the tree by a listing
of what a power cut left; the bytes of its files are among those of the writes.

Out of scope: writes through shared memory maps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from harness.content import Bytes, Content, Identities
from harness.evidence.evidence import DirectoryEntry
from harness.evidence.operation import Operation

# Linux gives up on a path after 40 symlinks; here a link names a checkpoint or loops.
_MOST_LINKS = 8


class TreeNode:
    """Anything with a place in the tree; an unlinked node keeps its last place."""

    __slots__ = ("number", "parents", "sync_version", "version")

    def __init__(self, number: int) -> None:
        self.number = number
        self.parents: list[Directory] = []
        self.version = 0
        """Grows with every change at or below this node."""
        self.sync_version = 0
        """Grows with every change at or below this node that a power cut would leave."""


class File(TreeNode):
    """A file, and its bytes."""

    __slots__ = ("content",)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.content = Content()


class Symlink(TreeNode):
    """A symlink; its text never changes."""

    __slots__ = ("text",)

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number)
        self.text = text


class Directory(TreeNode):
    """A directory, and the names in it."""

    __slots__ = ("entries",)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.entries: dict[str, TreeNode] = {}


class FileSystem:
    """The checkpoint directory over all runs of a scenario."""

    def __init__(self) -> None:
        self._numbers = 0
        self.root = Directory(self._next_number())
        self.identities = Identities()
        self.touched: set[TreeNode] = set()
        """The nodes at or below which something changed since the set was last cleared."""
        self._bound: dict[tuple[int, str] | int, TreeNode] = {}
        self._away = self.root
        """The checkpoint directory itself, also while it is moved away."""
        self._do: dict[str, Callable[[Operation, Bytes], None]] = {
            "open": self._open,
            "write": self._write,
            "truncate": self._truncate,
            "mkdir": self._mkdir,
            "rmdir": self._remove,
            "unlink": self._remove,
            "rename": self._rename,
            "exchange": self._exchange,
            "symlink": self._symlink,
            "link": self._link,
            "cut": self._cut,
            "displace": self._displace,
            "put_back": self._put_back,
        }

    def apply(self, operation: Operation, written: Bytes) -> None:
        """Replay one operation; `written` holds the bytes of its run's writes."""
        if operation.error == 0:
            change = self._do.get(operation.kind)
            # Other operations in the trace, such as a read, change nothing.
            if change is not None:
                change(operation, written)

    def end_run(self) -> None:
        """Closes the open files of the processes, which are gone."""
        self._bound.clear()

    def find(self, path: str, *, follow: bool = True) -> TreeNode | None:
        """Returns the node at a path of the live tree."""
        return self._walk(path, _MOST_LINKS if follow else 0)

    def nodes(self) -> Iterator[tuple[str, TreeNode]]:
        """Yields every node of the live tree with its path."""
        waiting: list[tuple[str, Directory]] = [("", self.root)]
        while waiting:
            prefix, directory = waiting.pop()
            for name, node in directory.entries.items():
                yield prefix + name, node
                if isinstance(node, Directory):
                    waiting.append((f"{prefix}{name}/", node))

    def path_of(self, number: int) -> str | None:
        """The place of a node in the live tree; None where it has none any more."""
        return next((path for path, node in self.nodes() if node.number == number), None)

    def snapshot(self) -> dict[str, DirectoryEntry]:
        """Returns every name below the checkpoint directory, as a scan of the disk would."""
        found: dict[str, DirectoryEntry] = {}
        self._scan(self.root, "", found)
        return found

    def _scan(self, directory: Directory, prefix: str, found: dict[str, DirectoryEntry]) -> None:
        for name, node in directory.entries.items():
            if isinstance(node, Directory):
                found[prefix + name] = DirectoryEntry(kind="directory", detail="")
                self._scan(node, f"{prefix}{name}/", found)
            elif isinstance(node, Symlink):
                found[prefix + name] = DirectoryEntry(kind="symlink", detail=node.text)
            elif isinstance(node, File):
                found[prefix + name] = DirectoryEntry(kind="file", detail=node.content.digest())

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _walk(self, path: str, links: int) -> TreeNode | None:
        node: TreeNode | None = self.root
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for place, part in enumerate(parts):
            if not isinstance(node, Directory):
                return None
            parent, node = node, (_parent_of(node) if part == ".." else node.entries.get(part))
            last = place == len(parts) - 1
            if isinstance(node, Symlink) and (not last or links):
                node = self._follow(parent, node, links or _MOST_LINKS)
        return node

    def _follow(self, parent: Directory, link: Symlink, links: int) -> TreeNode | None:
        # In a checkpoint directory, links only lead to names beside them.
        if links <= 1 or "/" in link.text.rstrip("/"):
            return None
        node = parent.entries.get(link.text.rstrip("/"))
        return self._follow(parent, node, links - 1) if isinstance(node, Symlink) else node

    def place(self, path: str) -> tuple[Directory, str] | None:
        """Returns the directory and the name that a path of the live tree refers to."""
        parent, _, name = path.rpartition("/")
        directory = self._walk(parent, _MOST_LINKS)
        return (directory, name) if isinstance(directory, Directory) else None

    def opened(self, operation: Operation) -> TreeNode | None:
        """Returns the node that an operation through a descriptor changes.

        A descriptor stays with the file that was opened, whatever its name has become.
        """
        if operation.opened is not None:
            return self._bound.get(operation.opened)
        found = self.find(operation.path)
        if operation.kind == "fsync" and found is not None:
            return found  # through a descriptor opened for reading, named when it was synced
        return self._bound.get((operation.rank, operation.path), found)

    def _changed(self, node: TreeNode) -> None:
        node.version += 1
        self.touched.add(node)
        for parent in node.parents:
            self._changed(parent)

    def note_durable(self, node: TreeNode) -> None:
        """Note a change at a node of what a power cut would leave."""
        node.sync_version += 1
        self.touched.add(node)
        for parent in node.parents:
            self.note_durable(parent)

    def _put(self, directory: Directory, name: str, node: TreeNode) -> None:
        directory.entries[name] = node
        if directory not in node.parents:
            node.parents.append(directory)
        self._changed(directory)

    def _open(self, operation: Operation, _written: Bytes) -> None:
        node = self.find(operation.path)
        place = self.place(operation.path)
        if node is None and operation.creates and place is not None:
            node = File(self._next_number())
            self._put(*place, node)
        if node is None:
            return
        self._bound[operation.rank, operation.path] = node
        if operation.opened is not None:
            self._bound[operation.opened] = node
        if operation.truncates and isinstance(node, File) and node.content.size:
            self._put_content(node, Content())

    def _put_content(self, file: File, content: Content) -> None:
        file.content = content
        self._changed(file)

    def _write(self, operation: Operation, written: Bytes) -> None:
        file = self.opened(operation)
        if isinstance(file, File) and operation.data is not None:
            data = Content.of(written, operation.data, operation.size)
            self._put_content(file, file.content.overwritten(operation.offset, data))

    def _truncate(self, operation: Operation, _written: Bytes) -> None:
        file = self.opened(operation)
        if isinstance(file, File):
            self._put_content(file, file.content.resized(operation.size))

    def _cut(self, operation: Operation, written: Bytes) -> None:
        """Replaces the tree: after a cut only what is listed exists, all of it durable."""
        start = operation.data or 0
        listing = json.loads(written[start : start + operation.size])
        self._bound.clear()
        before, self.root.entries = self.root.entries, {}
        for path, kind, detail in listing:
            place = self.place(path)
            if place is not None:
                self._put(*place, self._found(kind, detail, written))
        for name, node in self.root.entries.items():
            if name in before and _alike(before[name], node):
                self._put(self.root, name, before[name])
        self._changed(self.root)

    def _displace(self, _operation: Operation, _written: Bytes) -> None:
        """Takes the directory's name away, with everything in it."""
        self.root = Directory(self._next_number())
        self._changed(self.root)

    def _put_back(self, _operation: Operation, _written: Bytes) -> None:
        self.root = self._away
        self._changed(self.root)

    def _found(self, kind: str, detail: Any, written: Bytes) -> TreeNode:
        number = self._next_number()
        if kind == "symlink":
            return Symlink(number, detail)
        if kind == "directory":
            return Directory(number)
        file = File(number)
        file.content = Content.of(written, *detail)
        return file

    def _mkdir(self, operation: Operation, _written: Bytes) -> None:
        place = self.place(operation.path)
        if place is not None:
            self._put(*place, Directory(self._next_number()))

    def _symlink(self, operation: Operation, _written: Bytes) -> None:
        place = self.place(operation.path)
        if place is not None:
            self._put(*place, Symlink(self._next_number(), operation.target or ""))

    def _link(self, operation: Operation, _written: Bytes) -> None:
        node = self.find(operation.path, follow=False)
        place = self.place(operation.target or "")
        if node is not None and place is not None:
            self._put(*place, node)

    def _remove(self, operation: Operation, _written: Bytes) -> None:
        place = self.place(operation.path)
        if place is not None and place[0].entries.pop(place[1], None) is not None:
            self._changed(place[0])

    def _rename(self, operation: Operation, _written: Bytes) -> None:
        source, target = self.place(operation.path), self.place(operation.target or "")
        if source is None or target is None or source[1] not in source[0].entries:
            return
        node = source[0].entries[source[1]]
        if target[0].entries.get(target[1]) is node:
            return
        del source[0].entries[source[1]]
        self._changed(source[0])
        self._put(*target, node)
        _leave(source[0], node)

    def _exchange(self, operation: Operation, _written: Bytes) -> None:
        source, target = self.place(operation.path), self.place(operation.target or "")
        if source is None or target is None:
            return
        one, other = source[0].entries.get(source[1]), target[0].entries.get(target[1])
        if one is not None and other is not None:
            self._put(*target, one)
            self._put(*source, other)
            _leave(source[0], one)
            _leave(target[0], other)


def _leave(directory: Directory, node: TreeNode) -> None:
    """Notes that a name of a node has left a directory; the node may have another one there."""
    if node not in directory.entries.values():
        node.parents.remove(directory)


def _alike(one: TreeNode, other: TreeNode) -> bool:
    """Whether two trees hold the same; what survived a power cut counts as unchanged."""
    if isinstance(one, File) and isinstance(other, File):
        sizes = one.content.size == other.content.size
        return sizes and one.content.digest() == other.content.digest()
    if isinstance(one, Symlink) and isinstance(other, Symlink):
        return one.text == other.text
    if not isinstance(one, Directory) or not isinstance(other, Directory):
        return False
    names = one.entries.keys() == other.entries.keys()
    return names and all(_alike(one.entries[name], other.entries[name]) for name in one.entries)


def _parent_of(directory: Directory) -> Directory | None:
    return directory.parents[-1] if directory.parents else None
