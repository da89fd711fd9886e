"""Candidates for a load, best first, judged without reading their shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kempnerforge.checkpoint.errors import CheckpointNotFoundError, CorruptCheckpointError
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.catalog import (
    Entry,
    Outline,
    State,
    inspect,
    plain_stages,
    read_catalog,
    verify_sizes,
)
from kempnerforge.checkpoint.protocol.pointer import follow_file, resolve_pointer
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.protocol.verification import VerifyPolicy

__all__ = ["ForeignShards", "candidates", "find_explicit", "verify_entry"]


class ForeignShards(Protocol):
    """Looks at the shards of a checkpoint without a manifest."""

    def require_complete(self, directory: Path, storage: Storage) -> None:
        """See that the shards which ``.metadata`` speaks of are there and large enough.

        Raises:
            CorruptCheckpointError: One is not.
            UnreadableCheckpointError: That cannot be seen at present.
            UnsafeCheckpointError: ``.metadata`` asks for a class that is not allowed.
        """


def candidates(found: Outline, storage: Storage) -> Iterator[Entry]:
    """Candidates for a load: ``latest``, then the others by commit, newest first, then the torn.

    Those that cannot be read come before all that could be older than they are. Torn ones are
    listed so that they are reported when nothing better is found. Nothing is read for an entry
    before it is asked for.
    """
    latest, target = found.root / layout.LATEST, None
    if found.latest is not None or storage.is_directory(latest):
        target = latest if found.latest is None else _resolve(latest, found.latest, storage)
        yield inspect(target, storage)
    catalog = read_catalog(found.root, storage, outline=found)
    torn = [entry for entry in catalog.entries if entry.state is State.torn]
    for entry in (*catalog.newest_first(), *torn):
        if entry.path != target:
            yield entry


def _resolve(link: Path, target: str, storage: Storage) -> Path:
    """Where the link leads; a link within the directory keeps the directory's spelling."""
    if layout.parse_step(target) is not None:
        return link.parent / target
    return storage.resolve(follow_file(link, storage)) or link.parent / target


def find_explicit(path: Path, storage: Storage) -> Entry:
    """The checkpoint at a path that a person named: a checkpoint, a link to one, or a directory
    of checkpoints, which stands for what its ``latest`` names.

    Raises:
        CheckpointNotFoundError: There is nothing.
        OSError: One may not look there, or cannot at present.
    """
    path = follow_file(path, storage)
    real = storage.resolve(path)
    if real is None:
        raise CheckpointNotFoundError(f"{path} does not exist", path=str(path))
    entry = inspect(path if storage.read_link(path) is None else real, storage)
    if entry.state is State.torn:
        latest = resolve_pointer(path, storage)
        return entry if latest is None else inspect(latest, storage)
    return entry


def verify_entry(
    entry: Entry,
    storage: Storage,
    *,
    verify: VerifyPolicy = VerifyPolicy.full,
    shards: ForeignShards,
) -> None:
    """Check all that can be checked without reading shards.

    Raises:
        CorruptCheckpointError: Something is missing or has the wrong size.
        UnreadableCheckpointError: It cannot be read at present.
        NewerFormatError: It was written by a newer version of this package.
        UnsafeCheckpointError: ``.metadata`` of a plain checkpoint asks for a class not allowed.
    """
    if entry.state is State.torn:
        raise CorruptCheckpointError(f"incomplete: {entry.problem}", path=str(entry.path))
    if entry.is_questionable:
        entry.refuse()
    if entry.manifest is not None:
        if verify is not VerifyPolicy.off:
            verify_sizes(entry.path, entry.manifest, storage)
        return
    for stage in plain_stages(entry.path, storage) or (None,):
        folder = entry.path if stage is None else entry.path / layout.format_stage(stage)
        shards.require_complete(folder, storage)
