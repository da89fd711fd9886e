"""The checkpoint directory as it is now, and as a power cut can leave it. Three views are judged:

    live        everything as it is now
    durable     only what was synced
    journaled   the names in the checkpoint directory as they are now, below them only what was
                synced: the journal was written, the data was not; a rename between the two may
                be half there

`harness.crash` explores what lies between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from harness.content import Content
from harness.disk.disk import Disk
from harness.disk.tree import Directory, File, Symlink, TreeNode


class View:
    """The tree as seen live, after a power cut, or with the journal ahead of the data."""

    def __init__(self, disk: Disk, which: Literal["live", "durable", "journaled"]) -> None:
        self._disk = disk
        self._synced_top = which == "durable"
        self._synced_below = which != "live"

    def node(self, name: str) -> TreeNode | None:
        """Returns the node with this name in the checkpoint directory."""
        return self._entries(self._disk.files.root).get(name)

    def version(self, node: TreeNode) -> int:
        """Returns a number that grows with every change of `node` that this view shows."""
        return node.sync_version + node.version if self._synced_below else node.version

    def unsynced(self, name: str) -> tuple[str, ...]:
        """Returns files below `name` whose bytes changed after they were last synced.

        What a power cut leaves of them is unknown: the old bytes, the new ones, or none.
        """
        if not self._synced_below:
            return ()
        return tuple(self._unsynced(self._find(name), ""))

    def _unsynced(self, node: TreeNode | None, path: str) -> Iterator[str]:
        if isinstance(node, File) and node.number in self._disk.dirty:
            yield path
        elif isinstance(node, Directory):
            for name, inner in self._entries(node).items():
                yield from self._unsynced(inner, f"{path}/{name}".lstrip("/"))

    def kind(self, path: str) -> Literal["file", "directory", "symlink"] | None:
        """Returns the kind of node at `path`; does not follow a symlink."""
        node = self._find(path)
        if isinstance(node, Directory):
            return "directory"
        if isinstance(node, Symlink):
            return "symlink"
        return "file" if isinstance(node, File) else None

    def names(self, path: str) -> tuple[str, ...]:
        """Returns the names in a directory, sorted."""
        node = self._find(path)
        return tuple(sorted(self._entries(node))) if isinstance(node, Directory) else ()

    def text(self, path: str) -> str:
        """Returns the text of the symlink at `path`."""
        node = self._find(path)
        return node.text if isinstance(node, Symlink) else ""

    def content(self, path: str) -> Content:
        """Returns the bytes of the file at `path`."""
        node = self._find(path)
        if not isinstance(node, File):
            return Content()
        return self._disk.durable_content(node) if self._synced_below else node.content

    def _entries(self, directory: Directory) -> Mapping[str, TreeNode]:
        is_top = directory is self._disk.files.root
        synced = self._synced_top if is_top else self._synced_below
        return self._disk.durable_entries(directory) if synced else directory.entries

    def _find(self, path: str) -> TreeNode | None:
        node: TreeNode | None = self._disk.files.root
        for part in path.split("/"):
            if part == ".":
                continue
            if not isinstance(node, Directory):
                return None
            node = self._entries(node).get(part)
        return node
