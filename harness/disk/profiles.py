"""The promises of file systems about unsynced changes.

Both profiles: a change of names is atomic; a file keeps the bytes of its last sync, and of its
later changes anything from none to all, torn at 4 KiB.

    posix     Any unsynced change of names can be lost alone, whatever was done after it; only a
              directory that has moved to another one never has two names. A sync of a directory
              settles the names in it, a sync of a file its data and not its name. After a change
              of size the new bytes may be zero, and of several writes the later ones may be there
              without the earlier ones. More than any one file system does; what holds here holds
              on every file system that keeps POSIX's promises.
    ordered   Names reach the disk in the order of the operations, through one journal: a power
              cut keeps a beginning of them. A sync of a file or directory settles the journal up
              to its last change; a sync of a file that grew settles all of it, since its new
              blocks are allocated in the present transaction. Data that was appended and not
              synced survives as a beginning of itself, without gaps, since its size follows its
              blocks; emptying a file is ordered with the names. ext4 with data=ordered and
              without auto_da_alloc behaves so, and so does xfs.

Out of scope: half a change of names, bytes of other files in new blocks (data=writeback), sectors
torn below 4 KiB, a disk that loses what it reported as durable.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Literal, Protocol

from harness.disk.changes import FileLog, NameChange, Version
from harness.disk.disk import Disk, JournalEntry
from harness.disk.tree import Directory, File, TreeNode

BLOCK_BYTES = 4096
Kept = frozenset[int]
"""The serials of the changes of the journal that reached the disk."""

ProfileName = Literal["ordered", "posix"]

_ALL_SUBSETS = 5
"""Up to this many unsynced names, every subset is taken."""


class Profile(Protocol):
    """The unsynced changes that can be on the disk after a power cut."""

    name: ProfileName

    @property
    def journals_emptying(self) -> bool:
        """Whether emptying a file is ordered with the names."""

    def settled(self, disk: Disk, node: TreeNode) -> Iterable[JournalEntry]:
        """Returns the changes that a sync of `node` makes durable, without its own data."""

    def is_possible(self, kept: Kept, journal: Sequence[JournalEntry]) -> bool:
        """Whether a power cut can keep these and lose the rest."""

    def subsets(
        self, journal: Sequence[JournalEntry], newest: int | None, chance: Random, most: int
    ) -> tuple[tuple[Kept, ...], bool]:
        """Returns choices of what is kept, each with `newest`; and whether these are all."""

    def versions(
        self, log: FileLog, kept: Kept, journal: Sequence[JournalEntry]
    ) -> tuple[Version, ...]:
        """Returns the possible contents of a file, the most complete first."""


class Posix:
    """Anything that was not synced can be lost alone."""

    name: ProfileName = "posix"
    journals_emptying = False

    def settled(self, disk: Disk, node: TreeNode) -> Iterable[JournalEntry]:
        """Returns the names in the directory, and what a move ties to them elsewhere."""
        if isinstance(node, File):
            return ()
        return _with_earlier(
            disk.journal, lambda one: any(edit.directory is node for edit in one.edits)
        )

    def is_possible(self, kept: Kept, journal: Sequence[JournalEntry]) -> bool:
        """Whether no directory that has moved to another one has two names."""
        moved = _moved(journal)
        if not moved:
            return True
        needed = _with_earlier(
            journal,
            lambda one: one.serial in kept and any(edit.node in moved for edit in one.edits),
        )
        return all(change.serial in kept for change in needed)

    def subsets(
        self, journal: Sequence[JournalEntry], newest: int | None, chance: Random, most: int
    ) -> tuple[tuple[Kept, ...], bool]:
        """Returns all subsets of a few; of many, those with little or nothing lost, and others."""
        others = [change.serial for change in journal if change.serial != newest]
        must = frozenset() if newest is None else frozenset({newest})
        if len(others) <= _ALL_SUBSETS:
            sizes = range(len(others), -1, -1)
            chosen = (one for size in sizes for one in itertools.combinations(others, size))
            return self._possible((must.union(one) for one in chosen), journal), True
        whole = must.union(others)
        found = dict.fromkeys(
            itertools.chain(
                (whole, must),
                (whole - {one} for one in others),
                (must | {one} for one in others),
                (must.union(others[:length]) for length in range(len(others))),
                (whole - {one, other} for one, other in itertools.pairwise(others)),
            )
        )
        while len(found) < most:
            found[must.union(one for one in others if chance.random() < 0.5)] = None
        return self._possible(found, journal), False

    def versions(
        self,
        log: FileLog,
        kept: Kept,  # noqa: ARG002 - data does not depend on names here
        journal: Sequence[JournalEntry],  # noqa: ARG002
    ) -> tuple[Version, ...]:
        """Returns everything from nothing to all, in any order of blocks."""
        return tuple(_damages(log, log.lasting, len(log.changes), in_order=False))

    def _possible(
        self, subsets: Iterable[Kept], journal: Sequence[JournalEntry]
    ) -> tuple[Kept, ...]:
        if not _moved(journal):
            return tuple(subsets)
        return tuple(one for one in subsets if self.is_possible(one, journal))


class Ordered:
    """One journal keeps the order of names."""

    name: ProfileName = "ordered"
    journals_emptying = True

    def settled(self, disk: Disk, node: TreeNode) -> Iterable[JournalEntry]:
        """Returns the journal up to the node's last change, or all of it for new blocks."""
        log = disk.dirty.get(node.number)
        if log is not None and log.sizes[-1] > log.sizes[log.lasting]:
            return tuple(disk.journal)
        last = 0
        for change in disk.journal:
            if _concerns(change, node, log):
                last = change.serial
        return [change for change in disk.journal if change.serial <= last]

    def is_possible(self, kept: Kept, journal: Sequence[JournalEntry]) -> bool:
        """Whether it is a beginning of the journal."""
        beginning = [change.serial in kept for change in journal]
        return beginning == sorted(beginning, reverse=True)

    def subsets(
        self,
        journal: Sequence[JournalEntry],
        newest: int | None,
        chance: Random,  # noqa: ARG002 - there are few enough to take them all
        most: int,  # noqa: ARG002
    ) -> tuple[tuple[Kept, ...], bool]:
        """Returns every beginning of the journal, the longest first."""
        serials = [change.serial for change in journal]
        if newest is not None:
            return (frozenset(serials),), True
        lengths = range(len(serials), -1, -1)
        return tuple(frozenset(serials[:length]) for length in lengths), True

    def versions(
        self, log: FileLog, kept: Kept, journal: Sequence[JournalEntry]
    ) -> tuple[Version, ...]:
        """Returns versions with appended data up to some block, after the last kept truncation."""
        waiting = {change.serial for change in journal}
        base, top = log.lasting, len(log.changes)
        for number in log.emptying(base, top):
            serial = log.changes[number].serial
            if serial in kept:
                base = number + 1
            elif serial in waiting:
                top = number
                break
        return tuple(_damages(log, base, top, in_order=True))


PROFILES: dict[str, Profile] = {"ordered": Ordered(), "posix": Posix()}


def _with_earlier(
    journal: Sequence[JournalEntry], begins: Callable[[NameChange], bool]
) -> list[NameChange]:
    """Returns some changes of names, each with all earlier ones of the same names, in order."""
    names: set[tuple[int, str]] = set()
    found: list[NameChange] = []
    for change in reversed(journal):
        if not isinstance(change, NameChange):
            continue
        own = {(edit.directory.number, edit.name) for edit in change.edits}
        if own & names or begins(change):
            names |= own
            found.append(change)
    return found[::-1]


def _moved(journal: Sequence[JournalEntry]) -> set[TreeNode | None]:
    """Returns the directories that have moved to another directory."""
    return {
        edit.node
        for change in journal
        if isinstance(change, NameChange) and len(change.edits) > 1
        for edit in change.edits
        if isinstance(edit.node, Directory)
        and any(other.directory is not edit.directory for other in change.edits)
    }


def _concerns(change: JournalEntry, node: TreeNode, log: FileLog | None) -> bool:
    if isinstance(change, NameChange):
        return node.number in change.concerns
    return log is not None and change in log.changes


def _damages(log: FileLog, base: int, top: int, *, in_order: bool) -> Iterator[Version]:
    """Yields versions of a file between its first `base` and its first `top` changes."""
    yield Version(log.number, top)
    if base >= top:
        return
    yield Version(log.number, base)
    for number in log.emptying(base, top):
        if number + 1 != top:
            yield Version(log.number, number + 1)
    before, now = log.sizes[base], log.sizes[top]
    lowest = log.lowest(base, top)
    start = now if lowest is None else lowest
    cuts = _cuts(start, now)
    for at in cuts:
        yield Version(log.number, top, base, "torn", at)
    reserved = any(log.changes[one].size > before for one in log.resizing(base, top))
    if now > before and (reserved or not in_order):
        yield Version(log.number, top, base, "zeroed")
    if start < before or not in_order:
        for at in cuts[:1]:
            yield Version(log.number, top, base, "late", at)
        writes = log.writing(base, top)
        if len(writes) > 1:
            for number in sorted({writes[0], writes[len(writes) // 2], writes[-2]}):
                yield Version(log.number, top, base, "without", number)


def _cuts(start: int, end: int) -> tuple[int, ...]:
    """Returns block boundaries inside of what changed: the first, one in the middle, the last."""
    first = start // BLOCK_BYTES + 1
    last = (end - 1) // BLOCK_BYTES
    if last < first:
        return ()
    return tuple(sorted({one * BLOCK_BYTES for one in (first, (first + last) // 2, last)}))
