"""Splits the changes of operations into the pieces that a power cut keeps or loses.

A change of names is atomic, even if it has two sides, like a rename or an exchange. A change of
data is one write or one change of size.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
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

    __slots__ = (
        "_appending",
        "_base",
        "_emptying",
        "_lowest",
        "_prefixes",
        "_resizing",
        "_writing",
        "changes",
        "durable",
        "file",
        "lasting",
        "number",
        "sizes",
    )

    def __init__(self, file: File) -> None:
        self.file, self.number = file, file.number
        self.changes: list[DataChange] = []
        self.sizes = [file.content.size]
        self._writing: list[int] = []
        """The numbers of the changes that write."""
        self._resizing: list[int] = []
        """Those that change the size only."""
        self._emptying: list[int] = []
        """Those of them that leave nothing."""
        self._appending = 0
        """Every change from this number on appends."""
        self._lowest: dict[int, tuple[int, int | None]] = {}
        self.lasting = 0
        self.durable = self._base = file.content
        """The bytes after the first `lasting` changes."""
        self._prefixes: dict[int, Content] = {}
        """The bytes after so many first changes, of those that were asked for last."""

    def add(self, change: DataChange) -> None:
        """Add one more change, not durable yet."""
        end, number = change.offset + change.size, len(self.changes)
        (self._resizing if change.data is None else self._writing).append(number)
        if change.empties:
            self._emptying.append(number)
        if change.data is None or change.offset < self.sizes[-1]:
            self._appending = number + 1
        self.changes.append(change)
        self.sizes.append(end if change.data is None else max(self.sizes[-1], end))

    def writing(self, base: int, top: int) -> Sequence[int]:
        """Returns the numbers of the writes between two numbers of changes."""
        return _within(self._writing, base, top)

    def resizing(self, base: int, top: int) -> Sequence[int]:
        """Returns the numbers of the changes of size between two numbers of changes."""
        return _within(self._resizing, base, top)

    def emptying(self, base: int, top: int) -> Sequence[int]:
        """Returns the numbers of the changes between two that leave nothing of the file."""
        return _within(self._emptying, base, top)

    def lowest(self, base: int, top: int) -> int | None:
        """Returns the smallest offset of the writes between two numbers of changes, if any."""
        upto, found = self._lowest.get(base, (base, None))
        if upto > top:
            upto, found = base, None
        for number in self.writing(upto, top):
            offset = self.changes[number].offset
            found = offset if found is None else min(found, offset)
        self._lowest[base] = top, found
        return found

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
            return self._without(version.at, version.upto)
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
            begun = {0: self._base, **self._prefixes}
            if emptied := self.emptying(0, upto):
                begun[emptied[-1] + 1] = Content()
            start = max(one for one in begun if one <= upto)
            known = self._applied(begun[start], start, upto)
            if len(self._prefixes) == _PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            self._prefixes[upto] = known
        return known

    def _without(self, missing: int, upto: int) -> Content:
        if self.emptying(missing, upto):
            return self._after(upto)
        before = self._after(missing)
        if missing + 1 < self._appending or missing + 1 == upto:
            return self._applied(before, missing + 1, upto)
        end = self.sizes[missing + 1]
        return before.resized(end).followed(end, self._after(upto))

    def _applied(self, found: Content, start: int, stop: int) -> Content:
        for change in self.changes[start:stop]:
            if change.data is None:
                found = found.resized(change.offset + change.size)
            else:
                found = found.overwritten(change.offset, change.data)
        return found


def _within(numbers: list[int], base: int, top: int) -> list[int]:
    return numbers[bisect_left(numbers, base) : bisect_left(numbers, top)]
