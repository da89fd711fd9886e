"""Crash states the slow way, one after the other from the first operation on.

Nothing is shared between states and nothing is cached: the shared parts of `harness.crash` must
give the same result, and are measured against this.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.content import Bytes
from harness.crash.instants import Instant
from harness.disk.changes import Version
from harness.disk.disk import Disk
from harness.disk.state import SurvivingChanges
from harness.disk.tree import Directory, File, FileSystem, Symlink, TreeNode
from harness.evidence.evidence import Evidence
from harness.evidence.operation import Operation

Tree = dict[str, str | bytes | None]
"""By path: the text of a link, the bytes of a file, None for a directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A choice in terms of operations: whose names did not reach the disk, and what files hold."""

    names: frozenset[tuple[int, int]]
    versions: dict[int, Version]


def lost_in(disk: Disk, choice: SurvivingChanges) -> Lost:
    """Returns what a choice loses, by operation."""
    waiting = (one for one in disk.journal if one.serial not in choice.kept)
    return Lost(
        names=frozenset((one.run, one.operation.index) for one in waiting),
        versions=dict(choice.versions),
    )


@dataclass(slots=True)
class _Rebuild:
    live: FileSystem = field(default_factory=FileSystem)
    entries: dict[int, dict[str, TreeNode]] = field(default_factory=dict)
    writes: dict[int, list[tuple[int, bytes | None]]] = field(default_factory=dict)

    def follow(self, operation: Operation, written: Bytes, *, lost: bool) -> None:
        """Follow one operation, whose names do not reach the disk if it is lost."""
        self._note_data(operation, written)
        paths = [operation.path]
        if operation.target is not None and operation.kind != "symlink":
            paths.append(operation.target)
        places = [self.live.place(path) for path in paths]
        before = [None if one is None else one[0].entries.get(one[1]) for one in places]
        self.live.apply(operation, written)
        for place, old in zip(places, before, strict=True):
            if place is None or lost:
                continue
            directory, name = place
            node, mine = directory.entries.get(name), self.entries.setdefault(directory.number, {})
            if node is None and old is not None:
                mine.pop(name, None)
            elif node is not None and node is not old:
                mine[name] = node

    def tree(self, versions: dict[int, Version]) -> Tree:
        """Returns the contents of the disk."""
        found: Tree = {}
        self._walk(self.live.root, "", versions, found)
        return found

    def _walk(self, node: TreeNode, path: str, versions: dict[int, Version], found: Tree) -> None:
        for name, inner in self.entries.get(node.number, {}).items():
            place = f"{path}{name}"
            if isinstance(inner, Symlink):
                found[place] = inner.text
            elif isinstance(inner, File):
                found[place] = self._content(inner.number, versions.get(inner.number))
            elif isinstance(inner, Directory):
                found[place] = None
                self._walk(inner, f"{place}/", versions, found)

    def _note_data(self, operation: Operation, written: Bytes) -> None:
        if operation.error:
            return
        if operation.kind == "open" and operation.truncates:
            node = self.live.find(operation.path)
            if isinstance(node, File) and node.content.size:
                self.writes[node.number].append((0, None))
        elif operation.kind in ("write", "truncate"):
            node = self.live.opened(operation)
            if isinstance(node, File):
                start = operation.data
                data = None if start is None else written[start : start + operation.size]
                one = (operation.offset if data is not None else operation.size, data)
                self.writes.setdefault(node.number, []).append(one)

    def _content(self, number: int, version: Version | None) -> bytes:
        writes = self.writes.get(number, [])
        if version is None:
            return _apply(writes)
        kept = writes[: version.upto]
        if version.damage == "without":
            return _apply([one for place, one in enumerate(kept) if place != version.at])
        whole, before = _apply(kept), _apply(writes[: version.base])
        old = before + bytes(max(0, len(whole) - len(before)))
        match version.damage:
            case "torn":
                return whole[: version.at] + before[version.at :]
            case "zeroed":
                return old[: len(whole)]
            case "late":
                return old[: min(version.at, len(whole))] + whole[version.at :]
        return whole


def _apply(writes: list[tuple[int, bytes | None]]) -> bytes:
    data = b""
    for offset, part in writes:
        padded = data + bytes(max(0, offset - len(data)))
        data = (
            padded[:offset]
            if part is None
            else padded[:offset] + part + padded[offset + len(part) :]
        )
    return data


def rebuild(evidence: Evidence, instant: Instant, lost: Lost) -> Tree:
    """Returns the tree that a power cut at the instant leaves."""
    work = _Rebuild()
    for number, run in enumerate(evidence.runs[: instant.run + 1]):
        last = instant.place if number == instant.run else len(run.operations)
        for operation in run.operations[:last]:
            key = (number, operation.index)
            work.follow(operation, run.written, lost=key in lost.names)
        work.live.end_run()
    return work.tree(lost.versions)
