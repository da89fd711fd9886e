"""`ls` and `show`: list checkpoints, reading only names, manifests and small files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.errors import CheckpointError, shows_damage
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.catalog import (
    Catalog,
    Entry,
    State,
    inspect,
    read_catalog,
    read_metadata,
)
from kempnerforge.checkpoint.protocol.pointer import read_pointer, resolve_pointer
from kempnerforge.checkpoint.protocol.replacing import find_unfinished
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.cli.cautious import walk

__all__ = ["Latest", "Listing", "Row", "Sheet", "describe_latest", "list_directory", "show"]


_UNFINISHED = (
    "step {step} is being replaced by a new version, or its run died while doing so; in that case "
    "the next start of the job, or `repair`, completes it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One directory of a listing."""

    name: str
    state: str
    """``committed``, ``plain``, ``torn``, ``unreadable``, ``newer`` or ``leftover``."""
    step: int | None
    latest: bool
    bytes: int
    """Total size of the files present, without following links."""
    save_id: str | None
    world_size: int | None
    stages: tuple[int, ...] | None
    tokens_seen: int | None
    written: str | None
    """When the manifest was written or, without one, when the directory last changed; UTC."""
    problem: str | None
    """Why it is torn."""
    unreadable: tuple[str, ...] = ()
    """Parts that could not be read, or that only a newer version can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The state of ``latest``."""

    target: str | None
    """As written in the link or in the file; None if there is neither."""
    problem: str | None
    note: str | None = None
    unreadable: str | None = None
    """Why its state is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A directory of checkpoints."""

    directory: str
    latest: Latest
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One checkpoint in detail."""

    row: Row
    manifest: Mapping[str, Any] | None
    """The manifest without its list of files."""
    metadata: Mapping[str, Any]
    files: Mapping[str, Mapping[str, int | str | None]]
    """By path: ``bytes`` present (None if missing), ``expected`` and ``crc32`` if known."""
    unreadable: tuple[str, ...]


def list_directory(root: Path, storage: Storage) -> Listing:
    """Lists the package's directories in ``root``, by step, leftovers last."""
    catalog = read_catalog(root, storage)
    rows = [_row(entry, catalog, storage) for entry in catalog.entries]
    rows += [_leftover(root, name, latest=catalog.latest) for name in catalog.leftovers]
    return Listing(directory=str(root), latest=describe_latest(catalog, storage), rows=tuple(rows))


def describe_latest(catalog: Catalog, storage: Storage) -> Latest:
    """Returns the target of ``latest``, and what is wrong with it."""
    try:
        return _describe_latest(catalog, storage)
    except OSError as error:
        reason = f"cannot be inspected: {error.strerror or error}"
        return Latest(target=catalog.latest, problem=None, unreadable=reason)


def _describe_latest(catalog: Catalog, storage: Storage) -> Latest:
    if catalog.latest is None:
        there = layout.LATEST in storage.names(catalog.root)
        return Latest(
            target=None, problem="is neither a link nor a pointer file" if there else None
        )
    real = resolve_pointer(catalog.root, storage)
    if real is None:
        return Latest(target=catalog.latest, problem="leads nowhere")
    unfinished = find_unfinished(catalog.latest)
    entries = catalog.entries if unfinished is None else (inspect(real, storage),)
    for entry in entries:
        if storage.resolve(entry.path) == real:
            torn = entry.state is State.torn
            problem = f"names a torn checkpoint: {entry.problem}" if torn else None
            reason = f"names a checkpoint that is {entry.state}: {entry.problem}"
            return Latest(
                target=catalog.latest,
                problem=problem,
                unreadable=reason if entry.is_questionable else None,
                note=None if unfinished is None else _UNFINISHED.format(step=unfinished.step),
            )
    return Latest(target=catalog.latest, problem="does not lead to a checkpoint in this directory")


def show(entry: Entry, storage: Storage) -> Sheet:
    """Describes one checkpoint with its files."""
    catalog = Catalog(
        root=entry.path.parent,
        latest=read_pointer(entry.path.parent, storage),
        entries=(entry,),
        leftovers=(),
    )
    found = walk(entry.path)
    files: dict[str, Mapping[str, int | str | None]] = {
        name: {"bytes": size, "expected": None, "crc32": None}
        for name, size in found.files.items()
        if name != layout.MANIFEST
    }
    unreadable = list(found.unreadable)
    for name, record in (entry.manifest.files if entry.manifest else {}).items():
        files[name] = {
            "bytes": _size(entry.path, name, storage, unreadable),
            "expected": record.size,
            "crc32": f"{record.crc32:08x}",
        }
    return Sheet(
        row=_row(entry, catalog, storage),
        manifest=_head(entry),
        metadata=_metadata(entry, storage, unreadable),
        files=dict(sorted(files.items())),
        unreadable=tuple(dict.fromkeys(unreadable)),
    )


def _metadata(entry: Entry, storage: Storage, unreadable: list[str]) -> dict[str, Any]:
    try:
        return read_metadata(entry.path, storage)
    except CheckpointError as error:
        unreadable.append(str(error))
        return {}


def _head(entry: Entry) -> Mapping[str, Any] | None:
    found = entry.manifest
    if found is None:
        return None
    return {
        "save_id": found.save_id,
        "parent": found.parent,
        "sequence": found.sequence,
        "step": found.step,
        "tokens_seen": found.tokens_seen,
        "world_size": found.world_size,
        "stages": found.stages,
        "layout": found.layout,
    }


def _size(path: Path, name: str, storage: Storage, unreadable: list[str]) -> int | None:
    try:
        return storage.size(path / name)
    except OSError as error:
        if not shows_damage(error):
            unreadable.append(f"{name}: {error.strerror or error}")
        return None


def _row(entry: Entry, catalog: Catalog, storage: Storage) -> Row:
    found, files = entry.manifest, walk(entry.path)
    unreadable = [entry.problem] if entry.is_questionable and entry.problem else []
    unreadable += files.unreadable
    tokens = (
        found.tokens_seen if found else _metadata(entry, storage, unreadable).get("tokens_seen")
    )
    return Row(
        name=entry.path.name,
        state=str(entry.state),
        step=entry.step,
        latest=_is_latest(entry, catalog, storage),
        bytes=sum(files.files.values()),
        save_id=entry.head.save_id if entry.head else None,
        world_size=found.world_size if found else None,
        stages=found.stages if found else None,
        tokens_seen=tokens if isinstance(tokens, int) else None,
        written=_written(entry.path / layout.MANIFEST) or _written(entry.path),
        problem=None if entry.is_questionable else entry.problem,
        unreadable=tuple(dict.fromkeys(unreadable)),
    )


def _is_latest(entry: Entry, catalog: Catalog, storage: Storage) -> bool:
    try:
        real = storage.resolve(entry.path)
        return real is not None and real == resolve_pointer(catalog.root, storage)
    except OSError:  # reported for `latest` itself
        return entry.path.name == catalog.latest


def _leftover(root: Path, name: str, *, latest: str | None) -> Row:
    leftover = layout.parse_leftover(name)
    return Row(
        name=name,
        state="leftover",
        step=leftover.step if leftover else None,
        latest=name == latest,
        bytes=sum(walk(root / name).files.values()),
        save_id=leftover.save_id if leftover else None,
        world_size=None,
        stages=None,
        tokens_seen=None,
        written=_written(root / name),
        problem=None,
    )


def _written(path: Path) -> str | None:
    try:
        moment = datetime.fromtimestamp(os.lstat(path).st_mtime, UTC)
    except (OSError, OverflowError, ValueError):
        return None
    return moment.isoformat(timespec="seconds")
