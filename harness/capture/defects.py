"""Defects inside one checkpoint, file by file: missing, short, long, or with other bytes.

A checkpoint with a manifest is compared with it. One without is compared with a whole neighbour:
only missing and empty files can be found, because nothing else is known about a torn save.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kempnerforge.checkpoint.errors import shows_damage
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.catalog import Entry, State
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.cli.cautious import walk

Kind = Literal["missing", "empty", "short", "long", "changed", "exchanged", "odd", "unreadable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One file that differs from what was saved."""

    kind: Kind
    name: str
    """Path relative to the checkpoint."""
    detail: str
    other: str | None = None
    """If two files were exchanged: the checkpoint that this file comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A checkpoint that has all its files, and their names."""

    entry: Entry
    files: Mapping[str, int]


def neighbour_of(entries: Sequence[Entry]) -> Neighbour | None:
    """Returns the newest checkpoint to compare others with; prefers one with a manifest."""
    usable = [entry for entry in entries if entry.state in (State.committed, State.plain)]
    usable.sort(key=lambda entry: (entry.sequence, entry.step or 0))
    if not usable:
        return None
    entry = usable[-1]
    if entry.manifest is None:
        return Neighbour(entry=entry, files=walk(entry.path).files)
    files = {name: record.size for name, record in entry.manifest.files.items()}
    return Neighbour(entry=entry, files={**files, layout.MANIFEST: 1})


def find_defects(
    entry: Entry, others: Sequence[Entry], storage: Storage, *, deep: bool
) -> Iterator[Defect]:
    """Yields differences from the manifest, or from a neighbour; ``deep`` reads every byte."""
    found = walk(entry.path)
    there = found.files
    for one in found.unreadable:
        name, _, detail = one.partition(": ")
        yield Defect(kind="unreadable", name=name, detail=detail)
    if entry.is_questionable:
        detail = entry.problem or "cannot be read"
        yield Defect(kind="unreadable", name=layout.MANIFEST, detail=detail)
        return
    if entry.manifest is not None:
        for name, record in sorted(entry.manifest.files.items()):
            yield from _against_record(entry, others, name, record, storage, deep=deep)
        return
    if entry.state is State.torn and layout.MANIFEST in there:
        yield _manifest_defect(entry, there[layout.MANIFEST])
    neighbour = neighbour_of(others)
    for name in sorted(neighbour.files if neighbour is not None else ()):
        if name not in there and not found.unreadable:
            yield Defect(kind="missing", name=name, detail="is missing")
        elif there.get(name) == 0 and name != layout.MANIFEST:
            yield Defect(kind="empty", name=name, detail="has 0 bytes")


def _manifest_defect(entry: Entry, size: int) -> Defect:
    if size == 0:
        return Defect(kind="empty", name=layout.MANIFEST, detail="has 0 bytes")
    problem = entry.problem or "cannot be read"
    kind: Kind = "odd" if "is that of step" in problem else "changed"
    return Defect(kind=kind, name=layout.MANIFEST, detail=problem)


def _against_record(
    entry: Entry,
    others: Sequence[Entry],
    name: str,
    record: FileRecord,
    storage: Storage,
    *,
    deep: bool,
) -> Iterator[Defect]:
    try:
        size = storage.size(entry.path / name)
        # A sparse file can span terabytes: read only files that have the size of some save.
        worth_it = deep and size in _sizes(record, name, others)
        found = storage.checksum(entry.path / name) if worth_it else None
    except FileNotFoundError:
        yield Defect(kind="missing", name=name, detail="is missing")
        return
    except OSError as error:
        kind: Kind = "odd" if shows_damage(error) else "unreadable"
        yield Defect(kind=kind, name=name, detail=error.strerror or str(error))
        return
    if size == record.size and found in (None, record):
        return
    owner = None if found is None else _owner(found, name, others)
    if owner is not None:
        detail = f"holds the bytes of {owner}"
        yield Defect(kind="exchanged", name=name, detail=detail, other=owner)
    else:
        yield _by_size(name, size, record.size)


def _by_size(name: str, size: int, expected: int) -> Defect:
    detail = f"{size} of {expected} bytes"
    if size == expected:
        return Defect(kind="changed", name=name, detail="bytes differ from those saved")
    if size == 0:
        return Defect(kind="empty", name=name, detail=detail)
    return Defect(kind="short" if size < expected else "long", name=name, detail=detail)


def _sizes(record: FileRecord, name: str, others: Sequence[Entry]) -> set[int]:
    """Returns the sizes that a file of this name had in any save."""
    known = [other.manifest.files.get(name) for other in others if other.manifest is not None]
    return {record.size, *(one.size for one in known if one is not None)}


def _owner(found: FileRecord, name: str, others: Sequence[Entry]) -> str | None:
    """Returns the other checkpoint whose manifest lists these bytes under this name."""
    for other in others:
        if other.manifest is not None and other.manifest.files.get(name) == found:
            return other.path.name
    return None
