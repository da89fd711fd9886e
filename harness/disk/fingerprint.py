"""Identifies instants that show the same checkpoint directory, after a kill or a power cut."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from harness.disk.changes import NameChange
from harness.disk.disk import Disk
from harness.disk.tree import Directory, File, Symlink, TreeNode


def fingerprint(disk: Disk) -> str:
    """Returns a digest of all that a later run, a power cut or a judge can see of the directory.

    It covers names, bytes, texts of symlinks, and which names are one file; each of these as it is
    now and as it is durable; and the changes of names in between, because a power cut may keep one
    without another. Only instants of one replay can be compared, because a node is identified by
    its number there.
    """
    nodes: dict[int, object] = {}
    waiting: list[TreeNode] = [disk.files.root]
    while waiting:
        node = waiting.pop()
        if node.number not in nodes:
            nodes[node.number] = _describe(node, disk)
            if isinstance(node, Directory):
                waiting += [*node.entries.values(), *disk.durable_entries(node).values()]
    names = [
        (edit.directory.number, edit.name, edit.node and edit.node.number)
        for change in disk.journal
        if isinstance(change, NameChange)
        for edit in change.edits
    ]
    return hashlib.blake2b(repr((sorted(nodes.items()), names)).encode()).hexdigest()


def _describe(node: TreeNode, disk: Disk) -> object:
    if isinstance(node, Directory):
        return (_numbers(node.entries), _numbers(disk.durable_entries(node)))
    if isinstance(node, File):
        contents = (node.content, disk.durable_content(node))
        return tuple(disk.files.identities.of(one) for one in contents)
    return node.text if isinstance(node, Symlink) else None


def _numbers(entries: Mapping[str, TreeNode]) -> list[tuple[str, int]]:
    return sorted((name, node.number) for name, node in entries.items())
