"""A disk under a job: what is durable, what is not yet, and what both can become.

It follows the operations of a run through `harness.disk.tree` and tracks what a power cut could
still lose of each. The profile decides when a change becomes durable. A change of names is durable
as a whole or not at all: a rename between two directories loses no name and doubles none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        self.born: dict[int, int] = {}
        """The number of the change that gave a node its first name."""
        self._durable: dict[int, dict[str, TreeNode]] = {}
        self._edits: dict[int, list[tuple[int, str, TreeNode | None]]] = {}
        self._profile = profile
        self._serials = 0

    def apply(self, run: int, operation: Operation, written: Bytes) -> JournalEntry | None:
        """Follow one operation; returns the change that it made, unless it is durable at once."""
        if operation.error:
            return None
        match operation.kind:
            case "fsync":
                self._sync(self.files.opened(operation))
            case "sync":
                self._settle(self.journal)
                self._settle_data(list(self.dirty.values()))
            case "cut":
                self.files.apply(operation, written)
                self._settle_as_found()
            case "write" | "truncate":
                change = self._data_change(run, operation, written)
                self.files.apply(operation, written)
                return change
            case _:
                emptied = self._data_change(run, operation, written)
                return self._name_change(run, operation, written) or emptied
        return None

    def follow(self, stretches: Iterable[Stretch]) -> None:
        """Follow all of these; files that one of them left open are closed before the next."""
        for one in stretches:
            self.files.end_run()
            self.go_on(one)

    def go_on(self, stretch: Stretch) -> None:
        """Follow one of these while files stay open."""
        for operation in stretch.operations:
            self.apply(stretch.run, operation, stretch.written)

    def durable_entries(self, directory: Directory) -> Mapping[str, TreeNode]:
        """Returns the names in a directory without what a power cut can lose."""
        return self._durable.get(directory.number, {})

    def durable_content(self, file: File) -> Content:
        """Returns the bytes of a file without what a power cut can lose."""
        log = self.logs.get(file.number)
        return file.content if log is None else log.durable

    def entries(self, directory: Directory, kept: frozenset[int]) -> Mapping[str, TreeNode]:
        """Returns the names in a directory if only `kept` of the journal has reached the disk."""
        durable = self._durable.get(directory.number, {})
        edits = self._edits.get(directory.number)
        if not edits:
            return durable
        found = dict(durable)
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
                waiting.extend(self.durable_entries(node).values())
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
        log = self.dirty[node.number] = self.logs.setdefault(node.number, FileLog(node))
        log.add(change)
        if change.empties and self._profile.journals_emptying:
            self.journal.append(change)
        return change

    def _name_change(self, run: int, operation: Operation, written: Bytes) -> NameChange | None:
        """Perform an operation, and note the names that differ afterwards."""
        paths = [operation.path]
        if operation.target is not None and operation.kind != "symlink":
            paths.append(operation.target)
        places = [place for path in paths if (place := self.files.place(path)) is not None]
        before = [directory.entries.get(name) for directory, name in places]
        self.files.apply(operation, written)
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
            if edit.node is not None:
                self.born.setdefault(edit.node.number, change.serial)
        return change

    def _sync(self, node: TreeNode | None) -> None:
        if node is None:
            return
        self._settle(list(self._profile.settled(self, node)))
        if node.number in self.dirty:
            self._settle_data([self.dirty[node.number]])

    def _settle(self, changes: Sequence[JournalEntry]) -> None:
        """Note that changes of the journal are durable, in their order."""
        done = {change.serial for change in changes}
        before: dict[Directory, dict[str, TreeNode]] = {}
        for change in changes:
            if isinstance(change, DataChange):
                self._settle_emptied(change)
                continue
            for directory, name, node in change.edits:
                names = self._durable.setdefault(directory.number, {})
                if directory not in before:
                    before[directory] = dict(names)
                _edit(names, name, node)
        for directory, old in before.items():
            waiting = self._edits[directory.number]
            self._edits[directory.number] = [one for one in waiting if one[0] not in done]
            if self._durable[directory.number] != old:
                self.files.note_durable(directory)
        if done:
            self.journal = [change for change in self.journal if change.serial not in done]

    def _settle_emptied(self, change: DataChange) -> None:
        for log in list(self.dirty.values()):
            if change in log.changes:
                log.settle_emptied(change)
                self.files.note_durable(log.file)
                if log.lasting == len(log.changes):
                    del self.dirty[log.number]

    def _settle_data(self, logs: Iterable[FileLog]) -> None:
        """Note that all bytes of some files are durable."""
        for log in logs:
            log.settle()
            del self.dirty[log.number]
            self.files.note_durable(log.file)

    def _settle_as_found(self) -> None:
        """Note that the whole tree is durable, as a power cut has left it."""
        self.journal, self._edits = [], {}
        self._settle_data(list(self.dirty.values()))
        for node in (self.files.root, *(node for _, node in self.files.nodes())):
            if isinstance(node, Directory) and self.durable_entries(node) != node.entries:
                self._durable[node.number] = dict(node.entries)
                self.files.note_durable(node)

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
