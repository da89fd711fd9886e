"""Whether two instants show the same checkpoint directory, after a kill and after a power cut."""

from __future__ import annotations

import hashlib

from harness.content import Identities
from harness.judge.tree import Directory, File, FileSystem, Node, Symlink


def fingerprint(files: FileSystem) -> str:
    """A digest of all that a later run, a power cut and a judge can see of the directory.

    Names, bytes, texts of symlinks, which names are one file; and each of these as it was last
    synced, because what a later sync makes durable depends on it. Only instants of one replay can
    be compared: a node is known by its number there.
    """
    told: dict[int, object] = {}
    waiting: list[Node] = [files.root]
    while waiting:
        node = waiting.pop()
        if node.number not in told:
            told[node.number] = _describe(node, files.identities)
            if isinstance(node, Directory):
                waiting += [*node.entries.values(), *node.synced.values()]
    moves = [
        (source.number, old, target.number, new, node.number)
        for source, old, target, new, node in files.moves
    ]
    return hashlib.blake2b(repr((sorted(told.items()), moves)).encode()).hexdigest()


def _describe(node: Node, identities: Identities) -> object:
    if isinstance(node, Directory):
        return (_numbers(node.entries), _numbers(node.synced))
    if isinstance(node, File):
        return (identities.of(node.content), identities.of(node.synced))
    return node.text if isinstance(node, Symlink) else None


def _numbers(entries: dict[str, Node]) -> list[tuple[str, int]]:
    return sorted((name, node.number) for name, node in entries.items())
