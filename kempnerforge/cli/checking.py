"""`verify`: checks whether checkpoints are whole, by structure and sizes or by every byte.

A file that cannot be read (for lack of permission, say) is not damage, and is reported separately.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kempnerforge.checkpoint.errors import CheckpointError, shows_damage
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.protocol.catalog import (
    Entry,
    State,
    inspect,
    read_catalog,
    read_metadata,
)
from kempnerforge.checkpoint.protocol.replacing import find_unfinished
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.cli.cautious import walk
from kempnerforge.cli.listing import Latest, describe_latest
from kempnerforge.cli.tensors import read_contents

__all__ = ["Checked", "CheckedDirectory", "check", "check_directory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The result for one checkpoint."""

    name: str
    step: int | None
    state: str
    save_id: str | None
    level: str
    """How it was compared: ``checksums``, ``sizes``, or ``structure`` without a manifest."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    """Remarks that are no reason to distrust the checkpoint."""
    unreadable: tuple[str, ...] = ()
    """Read errors and newer formats: the checkpoint may or may not be whole."""

    @property
    def whole(self) -> bool:
        """Whether a load would accept it, as far as this check went."""
        return not self.problems and not self.unreadable


@dataclass(slots=True, kw_only=True)
class Findings:
    """Collects problems while one checkpoint is checked."""

    problems: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def note(self, error: CheckpointError | OSError, text: str) -> None:
        """Files the error under damage or under unreadable."""
        (self.problems if shows_damage(error) else self.unreadable).append(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedDirectory:
    """The result for a directory of checkpoints."""

    directory: str
    latest: Latest
    checkpoints: tuple[Checked, ...]
    notes: tuple[str, ...]


def check(entry: Entry, storage: Storage, *, deep: bool) -> Checked:
    """Verifies one checkpoint; ``deep`` reads every byte of it."""
    found, findings = entry.manifest, _findings(entry, storage, deep=deep)
    return Checked(
        name=entry.path.name,
        step=entry.step,
        state=str(entry.state),
        save_id=found.save_id if found else None,
        level=_level(entry, deep=deep),
        problems=tuple(findings.problems),
        notes=tuple(_notes(entry)),
        unreadable=tuple(findings.unreadable),
    )


def check_directory(root: Path, storage: Storage, *, deep: bool) -> CheckedDirectory:
    """Verifies every checkpoint of a directory, and ``latest``."""
    catalog = read_catalog(root, storage)
    entries = list(catalog.entries)
    if find_unfinished(catalog.latest) is not None and catalog.latest in catalog.leftovers:
        entries.append(inspect(root / catalog.latest, storage))
    return CheckedDirectory(
        directory=str(root),
        latest=describe_latest(catalog, storage),
        checkpoints=tuple(check(entry, storage, deep=deep) for entry in entries),
        notes=tuple(f"{name} was left by a save or a deletion" for name in catalog.leftovers),
    )


def _level(entry: Entry, *, deep: bool) -> str:
    if entry.manifest is None:
        return "structure"
    return "checksums" if deep else "sizes"


def _findings(entry: Entry, storage: Storage, *, deep: bool) -> Findings:
    findings = Findings()
    if entry.state is State.torn:
        findings.problems.append(entry.problem or "incomplete")
    elif entry.is_questionable:
        findings.unreadable.append(entry.problem or "cannot be read")
    else:
        _compare_files(entry, storage, findings, deep=deep)
        if not findings.problems and (deep or entry.manifest is None):
            _find_mixed(entry, storage, findings)
    return findings


def _compare_files(entry: Entry, storage: Storage, findings: Findings, *, deep: bool) -> None:
    """Compares the files with the manifest."""
    for name, record in sorted((entry.manifest.files if entry.manifest else {}).items()):
        try:
            size = storage.size(entry.path / name)
            found = storage.checksum(entry.path / name) if deep and size == record.size else record
        except OSError as error:
            findings.note(error, f"{name}: {error.strerror or error}")
            continue
        if size != record.size:
            findings.problems.append(f"{name}: {size} bytes, the manifest says {record.size}")
        elif found != record:
            findings.problems.append(
                f"{name}: crc32 {found.crc32:08x}, the manifest says {record.crc32:08x}"
            )


def _find_mixed(entry: Entry, storage: Storage, findings: Findings) -> None:
    """Checks that shards and metadata fit together and belong to one save."""
    try:
        contents = read_contents(entry.path, storage)
        metadata = {} if entry.manifest is None else read_metadata(entry.path, storage)
    except (CheckpointError, OSError) as error:
        findings.note(error, str(error))
        return
    for name, end in sorted(contents.shard_ends.items()):
        try:
            size = storage.size(entry.path / name)
        except OSError as error:
            findings.note(error, f"{name}: {error.strerror or error}")
            continue
        if size < end:
            findings.problems.append(f"{name}: {size} bytes, needs {end}")
    if entry.manifest is None:
        return
    ours = {entry.manifest.save_id}
    findings.problems.extend(
        f"{layout.SHARD_METADATA} belongs to save {save_id}"
        for save_id in sorted(contents.save_ids - ours)
    )
    if metadata.get("manifest") not in ours:
        findings.problems.append(f"{layout.METADATA} belongs to another save")


def _notes(entry: Entry) -> Iterator[str]:
    if entry.state is State.plain:
        yield "written without a manifest: damaged content cannot be detected"
    if entry.manifest is None:
        return
    known = {*entry.manifest.files, layout.MANIFEST}
    for name in sorted(set(walk(entry.path).files) - known)[:20]:
        yield f"{name} does not belong to the save"
