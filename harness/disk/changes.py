"""Splits the changes of operations into the pieces that a power cut keeps or loses.

A change of names is atomic, even if it has two sides, like a rename or an exchange. A change of
data is one write or one change of size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from harness.content import Content
from harness.disk.tree import Directory, File, TreeNode
from harness.evidence.operation import Operation

OperationKey = tuple[int, int]
"""A run, and the index of one of its operations."""

_PREFIXES = 64
"""So many contents of a file are remembered, so that the next one is made from the one before."""


class Edit(NamedTuple):
    """One name of one directory from now on: what it names, or None if it is gone."""

    directory: Directory
    name: str
    node: TreeNode | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NameChange:
    """Names that one operation changed. `concerns` has the numbers of all nodes that it touched."""

    serial: int
    run: int
    operation: Operation
    edits: tuple[Edit, ...]
    concerns: frozenset[int]

    def describe(self) -> str:
        """Describes the change, as part of a sentence."""
        path, target = self.operation.path, self.operation.target
        match self.operation.kind:
            case "rename":
                return f"the rename of {path} to {target}"
            case "exchange":
                return f"the exchange of {path} and {target}"
            case "link":
                return f"the link from {target} to {path}"
            case "unlink" | "rmdir":
                return f"the removal of {path}"
            case _:
                return f"the name of {path}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataChange:
    """One write to a file, or one change of its size (`data` is None)."""

    serial: int
    run: int
    operation: Operation
    offset: int
    size: int
    data: Content | None

    @property
    def empties(self) -> bool:
        """Whether it leaves nothing of the file: a change of metadata that needs no data."""
        return self.data is None and self.size == 0


class Version(NamedTuple):
    """The contents of a file: its first `upto` changes, minus the damage.

    Without damage that is all. `torn`: from offset `at` on it has the bytes from after its first
    `base` changes. `zeroed`: it has its new size, but no byte of the changes after `base`. `late`:
    only from offset `at` on are these bytes there. `without`: change number `at` is missing.
    """

    file: int
    upto: int
    base: int = 0
    damage: str = ""
    at: int = 0

    def describe(self, lasting: int) -> str:
        """Describes the state of the file; `lasting` of its changes were durable."""
        match self.damage:
            case "torn":
                return f"torn at {self.at} bytes"
            case "zeroed":
                return "zero-filled"
            case "late":
                return f"only what comes after the first {self.at} bytes is there"
            case "without":
                return "one write is missing"
            case _:
                return "lost" if self.upto <= lasting else "lost in part"


class FileLog:
    """All changes of one file's data in order, and how many of them are durable."""

    __slots__ = ("_base", "_prefixes", "changes", "durable", "file", "lasting", "number", "sizes")

    def __init__(self, file: File) -> None:
        self.file, self.number = file, file.number
        self.changes: list[DataChange] = []
        self.sizes = [file.content.size]
        self.lasting = 0
        self.durable = self._base = file.content
        """The bytes after the first `lasting` changes."""
        self._prefixes: dict[int, Content] = {}
        """The bytes after so many first changes, of those that were asked for last."""

    def add(self, change: DataChange) -> None:
        """Add one more change, not durable yet."""
        end = change.offset + change.size
        self.changes.append(change)
        self.sizes.append(end if change.data is None else max(self.sizes[-1], end))

    def settle(self) -> None:
        """Note that every change is durable."""
        self.lasting, self.durable = len(self.changes), self.file.content

    def settle_emptied(self, change: DataChange) -> None:
        """Note that a change that emptied the file is durable, and all before it."""
        upto = self.changes.index(change) + 1
        if upto > self.lasting:
            self.lasting, self.durable = upto, Content()

    def now(self) -> Version:
        """Returns the version with every change applied."""
        return Version(self.number, len(self.changes))

    def content(self, version: Version) -> Content:
        """Returns the bytes of a version."""
        if version.damage == "without":
            return self._applied(self._after(version.at), version.at + 1, version.upto)
        whole = self._after(version.upto)
        if not version.damage:
            return whole
        before = self._after(version.base)
        if version.damage == "torn":
            return whole.followed(version.at, before)
        filled = before.resized(whole.size)
        return filled if version.damage == "zeroed" else filled.followed(version.at, whole)

    def _after(self, upto: int) -> Content:
        """Returns the bytes after the first `upto` changes."""
        known = self._prefixes.get(upto)
        if known is None:
            start = max((one for one in self._prefixes if one < upto), default=0)
            known = self._applied(self._prefixes.get(start, self._base), start, upto)
            if len(self._prefixes) == _PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            self._prefixes[upto] = known
        return known

    def _applied(self, found: Content, start: int, stop: int) -> Content:
        for change in self.changes[start:stop]:
            if change.data is None:
                found = found.resized(change.offset + change.size)
            else:
                found = found.overwritten(change.offset, change.data)
        return found
