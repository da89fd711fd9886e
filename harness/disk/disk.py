"""A disk under a job: what is durable, what is not yet, and what both can become.

It follows the operations of a run through `harness.disk.tree` and tracks what a power cut could
still lose of each. The profile decides when a change becomes durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from harness.content import Bytes, Content
from harness.disk.changes import DataChange, Edit, FileLog, NameChange
from harness.disk.replay import Stretch
from harness.disk.tree import Directory, File, FileSystem, TreeNode
from harness.evidence.operation import Operation

JournalEntry = NameChange | DataChange
_REMOVALS = ("unlink", "rmdir")


class Settling(Protocol):
    """The part of a profile that the disk asks."""

    @property
    def journals_emptying(self) -> bool:
        """Whether emptying a file is ordered with the names."""

    def settled(self, disk: Disk, node: TreeNode) -> Iterable[JournalEntry]:
        """Returns the changes that a sync of `node` makes durable, without its own data."""


class Disk:
    """The checkpoint directory of a job, over all its runs."""

    def __init__(self, profile: Settling) -> None:
        self.files = FileSystem()
        self.logs: dict[int, FileLog] = {}
        self.journal: list[JournalEntry] = []
        """Changes of names that are not durable, in order."""
        self.dirty: dict[int, FileLog] = {}
        """Files with data that is not durable."""
        self._lasting: dict[int, dict[str, TreeNode]] = {}
        self._edits: dict[int, list[tuple[int, str, TreeNode | None]]] = {}
        self._profile = profile
        self._serials = 0

    def apply(self, run: int, operation: Operation, written: Bytes) -> JournalEntry | None:
        """Follow one operation; returns the change that it made, unless it is durable at once."""
        if operation.error:
            return None
        if operation.kind in ("fsync", "sync"):
            node = self.files.opened(operation) if operation.kind == "fsync" else None
            self.files.apply(operation, written)
            self._sync(node, everything=operation.kind == "sync")
            return None
        data = self._data_change(run, operation, written)
        names = self._name_change(run, operation, lambda: self.files.apply(operation, written))
        return names or data

    def follow(self, stretches: Iterable[Stretch]) -> None:
        """Follow all of these."""
        for one in stretches:
            self.files.end_run()
            for operation in one.operations:
                self.apply(one.run, operation, one.written)

    def entries(self, directory: Directory, kept: frozenset[int]) -> dict[str, TreeNode]:
        """Returns the names in a directory if only `kept` of the journal has reached the disk."""
        lasting = self._lasting.get(directory.number, {})
        edits = self._edits.get(directory.number)
        if not edits:
            return lasting
        found = dict(lasting)
        for serial, name, node in edits:
            if serial in kept:
                _edit(found, name, node)
        return found

    def is_steady(self, directory: Directory) -> bool:
        """Whether all names in a directory are durable."""
        return not self._edits.get(directory.number)

    def reachable(self) -> set[int]:
        """Returns the numbers of all nodes that some choice of what is kept can show."""
        seen: set[int] = set()
        waiting: list[TreeNode] = [self.files.root]
        while waiting:
            node = waiting.pop()
            if node.number in seen:
                continue
            seen.add(node.number)
            if isinstance(node, Directory):
                waiting.extend(self._lasting.get(node.number, {}).values())
                edits = self._edits.get(node.number, ())
                waiting.extend(one for _, _, one in edits if one is not None)
        return seen

    def _data_change(self, run: int, operation: Operation, written: Bytes) -> DataChange | None:
        """Note the change of data that an operation is about to make."""
        if operation.kind == "open":
            node = self.files.find(operation.path) if operation.truncates else None
            if not isinstance(node, File) or not node.content.size:
                return None
            offset, size, data = 0, 0, None
        elif operation.kind == "write" and operation.data is not None:
            node = self.files.opened(operation)
            offset, size = operation.offset, operation.size
            data = Content.of(written, operation.data, operation.size)
        elif operation.kind == "truncate":
            node, offset, size, data = self.files.opened(operation), 0, operation.size, None
        else:
            return None
        if not isinstance(node, File):
            return None
        change = DataChange(
            serial=self._next(), run=run, operation=operation, offset=offset, size=size, data=data
        )
        log = self.logs.setdefault(node.number, FileLog(node.number, node.content))
        log.add(change)
        self.dirty[node.number] = log
        if change.empties and self._profile.journals_emptying:
            self.journal.append(change)
        return change

    def _name_change(
        self, run: int, operation: Operation, perform: Callable[[], None]
    ) -> NameChange | None:
        """Perform an operation, and note the names that differ afterwards."""
        paths = [operation.path]
        if operation.target is not None and operation.kind != "symlink":
            paths.append(operation.target)
        places = [place for path in paths if (place := self.files.place(path)) is not None]
        before = [directory.entries.get(name) for directory, name in places]
        perform()
        edits = tuple(
            Edit(directory, name, directory.entries.get(name))
            for (directory, name), old in zip(places, before, strict=True)
            if directory.entries.get(name) is not old
        )
        if not edits:
            return None
        nodes = [*before, *(edit.node for edit in edits), *(edit.directory for edit in edits)]
        change = NameChange(
            serial=self._next(),
            run=run,
            operation=operation,
            edits=edits,
            concerns=frozenset(node.number for node in nodes if node is not None),
        )
        self.journal.append(change)
        for edit in edits:
            waiting = self._edits.setdefault(edit.directory.number, [])
            waiting.append((change.serial, edit.name, edit.node))
        return change

    def _sync(self, node: TreeNode | None, *, everything: bool) -> None:
        settled = list(self.journal) if everything else []
        if node is not None:
            settled = list(self._profile.settled(self, node))
        done = {change.serial for change in settled}
        for change in settled:
            if isinstance(change, NameChange):
                self._settle(change, done)
            else:
                self._settle_emptied(change)
        self.journal = [change for change in self.journal if change.serial not in done]
        for log in list(self.dirty.values()):
            if everything or (node is not None and log.number == node.number):
                log.lasting = len(log.changes)
            if log.lasting == len(log.changes):
                del self.dirty[log.number]

    def _settle(self, change: NameChange, done: set[int]) -> None:
        for edit in change.edits:
            number = edit.directory.number
            _edit(self._lasting.setdefault(number, {}), edit.name, edit.node)
            left = [one for one in self._edits.get(number, ()) if one[0] not in done]
            self._edits[number] = left

    def _settle_emptied(self, change: DataChange) -> None:
        for log in self.dirty.values():
            if change in log.changes:
                log.lasting = max(log.lasting, log.changes.index(change) + 1)

    def _next(self) -> int:
        self._serials += 1
        return self._serials


def is_removal(operation: Operation) -> bool:
    """Whether an operation takes something away."""
    return operation.kind in _REMOVALS


def _edit(entries: dict[str, TreeNode], name: str, node: TreeNode | None) -> None:
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node
