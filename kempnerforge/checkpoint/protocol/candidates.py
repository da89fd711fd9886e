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
    """Checks the shards of a checkpoint without a manifest."""

    def require_complete(self, directory: Path, storage: Storage) -> None:
        """Checks that the shards named in ``.metadata`` exist and are large enough.

        Raises:
            CorruptCheckpointError: A shard is missing or too short.
            UnreadableCheckpointError: A file cannot be read at present.
            UnsafeCheckpointError: ``.metadata`` asks for a class that is not allowed.
        """


def candidates(found: Outline, storage: Storage) -> Iterator[Entry]:
    """Yields candidates for a load: ``latest``, the others by commit, newest first, then torn ones.

    Checkpoints that cannot be read come before all that may be older. Torn ones are included so
    that they are reported if nothing better is found. Nothing is read for an entry before the
    caller asks for it.
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
    """Returns where the link leads; a link within the directory keeps the directory's spelling."""
    if layout.parse_step(target) is not None:
        return link.parent / target
    return storage.resolve(follow_file(link, storage)) or link.parent / target


def find_explicit(path: Path, storage: Storage) -> Entry:
    """Returns the checkpoint at a path given by a user.

    The path can be a checkpoint, a link to one, or a directory of checkpoints, which means the one
    that its ``latest`` names.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        OSError: The path may not, or at present cannot, be read.
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
    """Checks everything that can be checked without reading shards.

    Raises:
        CorruptCheckpointError: A file is missing or has the wrong size.
        UnreadableCheckpointError: The checkpoint cannot be read at present.
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
