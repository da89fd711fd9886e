"""The checkpoints in a directory, and the state of each.

Reads names, manifests and small files; writes nothing. Foreign content is ignored, unless a name
matches exactly. A checkpoint that cannot be read, or that has a newer format, is an entry too:
neither is torn, and code that chooses, replaces or deletes has to take it into account.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from kempnerforge.checkpoint.errors import (
    CheckpointError,
    CorruptCheckpointError,
    NewerFormatError,
    of_read,
)
from kempnerforge.checkpoint.format import layout, manifest
from kempnerforge.checkpoint.format.manifest import FileRecord, Head, Manifest, require_same
from kempnerforge.checkpoint.protocol.lineage import abandoned_branches
from kempnerforge.checkpoint.protocol.pointer import read_pointer
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = [
    "ROOM",
    "Catalog",
    "Entry",
    "Outline",
    "State",
    "inspect",
    "look_at",
    "parse_metadata",
    "plain_stages",
    "read_catalog",
    "read_metadata",
    "read_outline",
    "sequence_after",
    "verify_checksums",
    "verify_sizes",
]


class State(StrEnum):
    """The state of a checkpoint."""

    committed = "committed"
    """It has an intact manifest."""
    plain = "plain"
    """Written by another program: shards, their metadata and a train state, but no manifest."""
    torn = "torn"
    """Something is missing."""
    unreadable = "unreadable"
    """It cannot be read at present, and may be in any of the other states."""
    newer = "newer"
    """It has an intact manifest in a format that only a newer version of this package reads."""


_QUESTIONABLE = frozenset({State.unreadable, State.newer})

ROOM = 1 << 20
"""More saves than there can ever be between two retained checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One directory that may be a checkpoint."""

    path: Path
    state: State
    step: int | None
    """From the manifest or, without one, from the name."""
    manifest: Manifest | None = None
    problem: str | None = None
    """Why it is torn, unreadable, or not usable by this version."""
    head: Head | None = None
    """The head of its manifest, if it could be read."""
    error: CheckpointError | None = None
    """The error for a load to raise, if it is unreadable or has a newer format."""

    @property
    def sequence(self) -> int:
        """Position in the order of commits; plain checkpoints come before all others."""
        return self.head.sequence if self.head else 0

    @property
    def loadable_head(self) -> Head | None:
        """The head of its manifest, if this version of the package can load it."""
        return self.head if self.state is State.committed else None

    @property
    def is_questionable(self) -> bool:
        """Whether it may be whole, although this process cannot load it."""
        return self.state in _QUESTIONABLE

    @property
    def is_unknown(self) -> bool:
        """Whether it is questionable and its place in the order is unknown too."""
        return self.is_questionable and self.head is None

    def refuse(self) -> NoReturn:
        """Raises the error of a questionable checkpoint."""
        assert self.error is not None
        # A new object for each raise, because a traceback keeps alive what its frames hold.
        raise type(self.error)(str(self.error), step=self.step, path=str(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The names in a checkpoint directory; nothing else was read."""

    root: Path
    latest: str | None
    """The target of ``latest``, as written."""
    names: tuple[str, ...]
    """All names, sorted."""

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of checkpoints, sorted by step."""
        steps = ((layout.parse_step(name), name) for name in self.names)
        return tuple(name for _, name in sorted((s, name) for s, name in steps if s is not None))

    @property
    def leftovers(self) -> tuple[str, ...]:
        """The package's names other than checkpoints: staging, replaced, trash, unplaced links."""
        return tuple(filter(layout.is_leftover, self.names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything under one checkpoint directory."""

    root: Path
    latest: str | None
    """The target of ``latest``, as written."""
    entries: tuple[Entry, ...]
    """The ``step_N`` directories, sorted by step."""
    leftovers: tuple[str, ...]
    """The package's names other than checkpoints: staging, replaced, trash, unplaced links."""

    def newest_first(self) -> tuple[Entry, ...]:
        """Returns all entries that are not torn, in the order in which a load prefers them.

        First come those that cannot be read, because any of them may be the newest. Then come those
        that training descends from, newest commit first, and last those on an abandoned branch and
        those without a manifest.
        """
        usable = [entry for entry in self.entries if entry.state is not State.torn]
        abandoned = self.abandoned()

        def age(entry: Entry) -> tuple[bool, bool, int, int]:
            descended = entry.head is not None and entry.head.save_id not in abandoned
            return entry.is_unknown, descended, entry.sequence, entry.step or 0

        return tuple(sorted(usable, key=age, reverse=True))

    def abandoned(self) -> frozenset[str]:
        """Save ids of checkpoints that the last committed one does not descend from."""
        return abandoned_branches(entry.head for entry in self.entries if entry.head)

    def next_sequence(self) -> int:
        """Returns a sequence greater than that of any commit so far."""
        return sequence_after(self.entries)


def sequence_after(entries: Iterable[Entry]) -> int:
    """Returns a position in the order of commits after all of ``entries``.

    It is the next one if all entries could be read. Otherwise it is so far beyond that unread
    entries come before it as well.
    """
    highest, room = 0, 1
    for entry in entries:
        highest = max(highest, entry.sequence)
        if entry.is_unknown:
            room = ROOM
    return highest + room


def read_outline(root: Path, storage: Storage) -> Outline:
    """Lists the names in ``root``; there are none if it does not exist."""
    names = storage.names(root)
    return Outline(root=root, latest=read_pointer(root, storage), names=names)


def read_catalog(root: Path, storage: Storage, *, outline: Outline | None = None) -> Catalog:
    """Reads all entries of ``root``; empty if it does not exist.

    Args:
        root: The checkpoint directory.
        storage: The storage of the directory.
        outline: The outline of the directory, if known already.
    """
    outline = outline or read_outline(root, storage)
    entries = (look_at(root / name, storage) for name in outline.steps)
    return Catalog(
        root=root,
        latest=outline.latest,
        entries=tuple(entry for entry in entries if entry is not None),
        leftovers=outline.leftovers,
    )


def look_at(path: Path, storage: Storage, *, heads: bool = False) -> Entry | None:
    """As :func:`inspect`, but returns None if ``path`` is not a directory.

    Args:
        path: A path in the checkpoint directory.
        storage: The storage of the directory.
        heads: Whether the head of a manifest suffices.
    """
    where = path / layout.MANIFEST
    try:
        data = storage.read(where)
    except (OSError, MemoryError):  # `inspect` reports it in more detail
        return (
            inspect(path, storage, heads=heads) if _may_lead_to_directory(path, storage) else None
        )
    return _parsed(path, data, where, heads=heads)


def _may_lead_to_directory(path: Path, storage: Storage) -> bool:
    try:
        real = storage.resolve(path)
        return real is not None and storage.is_directory(real)
    except (OSError, MemoryError):
        return True


def inspect(path: Path, storage: Storage, *, heads: bool = False) -> Entry:
    """Returns the state of one directory, from names and small files only, without sizes.

    Args:
        path: A directory that may be a checkpoint.
        storage: The storage of the directory.
        heads: Whether the head of a manifest suffices; the entry then has no manifest.
    """
    where = path / layout.MANIFEST
    try:
        data = storage.read(where)
    except FileNotFoundError:
        try:
            return _inspect_plain(path, layout.parse_step(path.name), storage)
        except CheckpointError as error:
            return _failed(path, error)
        except (OSError, MemoryError) as error:
            return _failed(path, of_read(error, path, path=path))
    except (OSError, MemoryError) as error:
        return _failed(path, of_read(error, where, path=path))
    return _parsed(path, data, where, heads=heads)


def _parsed(path: Path, data: bytes, where: Path, *, heads: bool) -> Entry:
    parse: Callable[..., Manifest | Head] = manifest.read_head if heads else manifest.decode
    try:
        return _committed(path, parse(data, where=str(where)))
    except NewerFormatError as error:
        return _newer(path, data, error)
    except CorruptCheckpointError as error:
        return _failed(path, error)


def _committed(path: Path, found: Manifest | Head) -> Entry:
    head = found.head if isinstance(found, Manifest) else found
    step = layout.parse_step(path.name)
    if step is not None and head.step != step:
        return _torn(path, f"its manifest is that of step {head.step}")
    if head.format not in manifest.READABLE_FORMATS:
        where = path / layout.MANIFEST
        error = manifest.newer_format(head.format, where=where, step=head.step)
        return _refused(path, State.newer, error, head)
    return Entry(
        path=path,
        state=State.committed,
        step=head.step,
        manifest=found if isinstance(found, Manifest) else None,
        head=head,
    )


def _newer(path: Path, data: bytes, error: NewerFormatError) -> Entry:
    try:
        return _committed(path, manifest.read_head(data, where=str(path / layout.MANIFEST)))
    except NewerFormatError:  # it does not even have a head
        return _refused(path, State.newer, error)


def _failed(path: Path, error: CheckpointError) -> Entry:
    """Returns the entry for a failed read: torn if it is damage, and otherwise unreadable."""
    if isinstance(error, CorruptCheckpointError):
        return _torn(path, str(error))
    return _refused(path, State.unreadable, error)


def _torn(path: Path, problem: str) -> Entry:
    return Entry(path=path, state=State.torn, step=layout.parse_step(path.name), problem=problem)


def _refused(path: Path, state: State, error: CheckpointError, head: Head | None = None) -> Entry:
    return Entry(
        path=path,
        state=state,
        step=layout.parse_step(path.name) if head is None else head.step,
        problem=str(error),
        head=head,
        error=type(error)(str(error), path=str(path)),
    )


def _inspect_plain(path: Path, step: int | None, storage: Storage) -> Entry:
    names = set(storage.names(path))
    problem = None
    if layout.TRAIN_STATE not in names:
        problem = f"{layout.TRAIN_STATE} is missing"
    elif read_metadata(path, storage).get("manifest") is not None:
        problem = f"{layout.MANIFEST} is missing"
    elif plain_stages(path, storage) is None:
        problem = f"{layout.SHARD_METADATA} of a stage is missing"
    state = State.plain if problem is None else State.torn
    return Entry(path=path, state=state, step=step, problem=problem)


def plain_stages(path: Path, storage: Storage) -> tuple[int, ...] | None:
    """Returns the stages of a checkpoint without manifest; empty if it has none, None if torn."""
    names = storage.names(path)
    if layout.SHARD_METADATA in names:
        return ()
    stages = sorted(stage for name in names if (stage := layout.parse_stage(name)) is not None)
    gapless = bool(stages) and stages == list(range(len(stages)))
    complete = gapless and all(
        layout.SHARD_METADATA in storage.names(path / layout.format_stage(stage))
        for stage in stages
    )
    return tuple(stages) if complete else None


def read_metadata(path: Path, storage: Storage) -> dict[str, Any]:
    """Returns the content of ``metadata.json``; empty if it is missing or malformed.

    Raises:
        UnreadableCheckpointError: It cannot be read at present.
    """
    where = path / layout.METADATA
    try:
        return parse_metadata(storage.read(where))
    except (OSError, MemoryError) as error:
        found = of_read(error, where, path=path)
        if isinstance(found, CorruptCheckpointError):
            return {}
        raise found from error


def parse_metadata(data: bytes) -> dict[str, Any]:
    """Parses a ``metadata.json``; returns an empty dict if it is malformed."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def verify_sizes(path: Path, found: Manifest, storage: Storage) -> None:
    """Checks that every file of the manifest exists and has its size.

    Raises:
        CorruptCheckpointError: A file is missing or has another size.
        UnreadableCheckpointError: The size of a file cannot be determined at present.
    """
    for name, record in sorted(found.files.items()):
        try:
            size = storage.size(path / name)
        except (OSError, MemoryError) as error:
            raise of_read(error, path / name, path=path, step=found.step) from error
        if size != record.size:
            raise CorruptCheckpointError(
                f"{path / name}: {size} bytes, the manifest says {record.size}",
                step=found.step,
                path=str(path),
            )


def verify_checksums(
    path: Path, expected: Iterable[tuple[str, FileRecord]], storage: Storage
) -> None:
    """Reads files in full and compares them with what was written.

    Raises:
        CorruptCheckpointError: A file differs or is missing.
        UnreadableCheckpointError: A file cannot be read at present.
    """
    for name, record in expected:
        try:
            found = storage.checksum(path / name)
        except (OSError, MemoryError) as error:
            raise of_read(error, path / name, path=path) from error
        require_same(path, name, found, record)
