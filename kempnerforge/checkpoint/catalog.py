"""What a checkpoint directory holds, and in which state each of it is.

Reads names, manifests and small files; writes nothing. Safe on foreign content: whatever is not
exactly ours is ignored.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint import layout, manifest
from kempnerforge.checkpoint.errors import CorruptCheckpointError
from kempnerforge.checkpoint.lineage import standing_aside
from kempnerforge.checkpoint.manifest import FileRecord, Manifest
from kempnerforge.checkpoint.stale import again_if_stale
from kempnerforge.checkpoint.storage import Storage

__all__ = [
    "Catalog",
    "Entry",
    "State",
    "inspect",
    "parse_metadata",
    "plain_stages",
    "read_catalog",
    "read_metadata",
    "require_same",
    "verify_checksums",
    "verify_sizes",
]


class State(StrEnum):
    """How much of a checkpoint there is."""

    committed = "committed"
    """Has a manifest of ours that is intact."""
    plain = "plain"
    """Written by another program: shards, their metadata and a train state, no manifest."""
    torn = "torn"
    """Something is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One directory that may be a checkpoint."""

    path: Path
    state: State
    step: int | None
    """From the manifest, else from the name."""
    manifest: Manifest | None = None
    problem: str | None = None
    """Why it is torn."""

    @property
    def sequence(self) -> int:
        """Position in the order of commits; plain checkpoints come before all of ours."""
        return self.manifest.sequence if self.manifest else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything under one checkpoint directory."""

    root: Path
    latest: str | None
    """Target of the ``latest`` link as written in it."""
    entries: tuple[Entry, ...]
    """The ``step_N`` directories, by step."""
    leftovers: tuple[str, ...]
    """Names of ours that are no checkpoints: staging, replaced, trash, unplaced links."""

    def newest_first(self) -> tuple[Entry, ...]:
        """Usable entries: what training descends from, the last committed first, then the others.

        Others are those of a branch that was rolled back from, and those without a manifest.
        """
        usable = [entry for entry in self.entries if entry.state is not State.torn]
        aside = self.aside()

        def age(entry: Entry) -> tuple[bool, int, int]:
            descended = entry.manifest is not None and entry.manifest.save_id not in aside
            return descended, entry.sequence, entry.step or 0

        return tuple(sorted(usable, key=age, reverse=True))

    def aside(self) -> frozenset[str]:
        """Save ids of checkpoints that the last committed one does not descend from."""
        return standing_aside(entry.manifest for entry in self.entries if entry.manifest)

    def next_sequence(self) -> int:
        """One more than any commit so far."""
        return 1 + max((entry.sequence for entry in self.entries), default=0)


def read_catalog(root: Path, storage: Storage) -> Catalog:
    """Look at ``root``; empty where it does not exist."""
    names = storage.names(root)
    steps = sorted((step, name) for name in names if (step := layout.parse_step(name)) is not None)
    directories = [root / name for _, name in steps if _leads_to_directory(root / name, storage)]
    return Catalog(
        root=root,
        latest=storage.read_link(root / layout.LATEST),
        entries=tuple(inspect(path, storage) for path in directories),
        leftovers=tuple(filter(_is_leftover, names)),
    )


def _leads_to_directory(path: Path, storage: Storage) -> bool:
    real = storage.resolve(path)
    return real is not None and storage.is_directory(real)


def _is_leftover(name: str) -> bool:
    return layout.parse_leftover(name) is not None or layout.parse_latest_link(name) is not None


def inspect(path: Path, storage: Storage) -> Entry:
    """The state of one directory, from names and small files only; sizes are not looked at."""
    step = layout.parse_step(path.name)
    try:
        data = storage.read(path / layout.MANIFEST)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            return Entry(path=path, state=State.torn, step=step, problem=str(error))
        try:
            return _inspect_plain(path, step, storage)
        except OSError as odd:  # a file where a directory is expected, or one we may not read
            return Entry(path=path, state=State.torn, step=step, problem=str(odd))
    try:
        found = manifest.decode(data, where=str(path / layout.MANIFEST))
    except CorruptCheckpointError as error:
        return Entry(path=path, state=State.torn, step=step, problem=str(error))
    if step is not None and found.step != step:
        problem = f"its manifest is that of step {found.step}"
        return Entry(path=path, state=State.torn, step=step, problem=problem)
    return Entry(path=path, state=State.committed, step=found.step, manifest=found)


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
    """Stages of a checkpoint without manifest: empty without stages, None if incomplete."""
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
    """Content of ``metadata.json``; empty where it is missing or unreadable."""
    try:
        return parse_metadata(storage.read(path / layout.METADATA))
    except OSError:
        return {}


def parse_metadata(data: bytes) -> dict[str, Any]:
    """What a ``metadata.json`` says; empty where it is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def verify_sizes(path: Path, found: Manifest, storage: Storage) -> None:
    """Check that every file of the manifest is there with its size.

    Raises:
        CorruptCheckpointError: One is missing or has another size.
    """
    for name, record in sorted(found.files.items()):
        try:
            size = storage.size(path / name)
        except OSError as error:
            raise CorruptCheckpointError(
                f"{path / name}: {error.strerror or error}", step=found.step, path=str(path)
            ) from error
        if size != record.size:
            raise CorruptCheckpointError(
                f"{path / name}: {size} bytes, the manifest says {record.size}",
                step=found.step,
                path=str(path),
            )


def verify_checksums(
    path: Path, expected: Iterable[tuple[str, FileRecord]], storage: Storage
) -> None:
    """Read files in full and compare them with what was written.

    Raises:
        CorruptCheckpointError: One differs.
    """
    for name, record in expected:
        try:
            found = again_if_stale(partial(storage.checksum, path / name), path / name)
        except OSError as error:
            raise CorruptCheckpointError(f"{path / name}: {error}", path=str(path)) from error
        require_same(path, name, found, record)


def require_same(path: Path, name: str, found: FileRecord, expected: FileRecord) -> None:
    """Check that a file of the checkpoint at ``path`` is what was saved.

    Raises:
        CorruptCheckpointError: It is not.
    """
    if found != expected:
        raise CorruptCheckpointError(
            f"{path / name}: content differs from what was saved (crc32 {found.crc32:08x} of "
            f"{found.size} bytes, the manifest says {expected.crc32:08x} of {expected.size})",
            path=str(path),
        )
