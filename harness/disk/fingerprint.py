"""Identifies instants that show the same checkpoint directory, after a kill or a power cut."""

from __future__ import annotations

import hashlib

from harness.content import Identities
from harness.disk.tree import Directory, File, FileSystem, Symlink, TreeNode


def fingerprint(files: FileSystem) -> str:
    """Returns a digest of all that a later run, a power cut or a judge can see of the directory.

    It covers names, bytes, texts of symlinks, and which names are one file; and each of these as it
    was last synced, because that decides what a later sync makes durable. Only instants of one
    replay can be compared, because a node is identified by its number there.
    """
    nodes: dict[int, object] = {}
    waiting: list[TreeNode] = [files.root]
    while waiting:
        node = waiting.pop()
        if node.number not in nodes:
            nodes[node.number] = _describe(node, files.identities)
            if isinstance(node, Directory):
                waiting += [*node.entries.values(), *node.synced.values()]
    moves = [
        (source.number, old, target.number, new, node.number)
        for source, old, target, new, node in files.moves
    ]
    return hashlib.blake2b(repr((sorted(nodes.items()), moves)).encode()).hexdigest()


def _describe(node: TreeNode, identities: Identities) -> object:
    if isinstance(node, Directory):
        return (_numbers(node.entries), _numbers(node.synced))
    if isinstance(node, File):
        return (identities.of(node.content), identities.of(node.synced))
    return node.text if isinstance(node, Symlink) else None


def _numbers(entries: dict[str, TreeNode]) -> list[tuple[str, int]]:
    return sorted((name, node.number) for name, node in entries.items())
