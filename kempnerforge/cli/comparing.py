"""`diff`: how two checkpoints differ."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from kempnerforge.checkpoint.errors import CheckpointError, shows_damage
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.manifest import FileRecord
from kempnerforge.checkpoint.protocol.catalog import Entry, read_metadata
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.cli.cautious import walk
from kempnerforge.cli.checking import Findings
from kempnerforge.cli.tensors import Tensor, read_contents

__all__ = ["Difference", "compare"]

T = TypeVar("T")

_ABOUT_THE_SAVE = frozenset((layout.MANIFEST, layout.METADATA, layout.SHARD_METADATA))
"""Files that contain the save id, and therefore differ between any two saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The differences between two checkpoints; empty if there are none."""

    tensors_added: tuple[str, ...]
    tensors_removed: tuple[str, ...]
    tensors_changed: Mapping[str, tuple[str, str]]
    """Dtype and shape in both, such as ``float32[4, 8]``."""
    files_added: tuple[str, ...]
    files_removed: tuple[str, ...]
    files_changed: tuple[str, ...]
    metadata: Mapping[str, tuple[Any, Any]]
    """Keys of ``metadata.json`` with both values; None for a key that is absent."""
    freeze: Mapping[str, tuple[bool | None, bool | None]]
    """Modules that are frozen in one checkpoint, and not frozen or not named in the other."""
    compared_by: str
    """``checksums`` of the manifests, or ``bytes`` that were read."""
    problems: tuple[str, ...]
    """Damage that prevented a comparison."""
    unreadable: tuple[str, ...] = ()
    """Read errors that prevented a comparison."""

    @property
    def same_content(self) -> bool:
        """Whether every file that holds state is the same in both."""
        files = self.files_added or self.files_removed or self.files_changed
        return not files and not self.problems and not self.unreadable

    @property
    def same(self) -> bool:
        """Whether nothing but the save ids differs."""
        tensors = self.tensors_added or self.tensors_removed or self.tensors_changed
        return self.same_content and not (tensors or self.metadata or self.freeze)

    @property
    def differs(self) -> bool:
        """Whether something is known to differ, or to be damaged."""
        return not replace(self, unreadable=()).same


def compare(one: Entry, other: Entry, storage: Storage) -> Difference:
    """Compares two checkpoints; reads shards only if a manifest is missing."""
    findings = Findings()
    for entry in (one, other):
        if entry.is_questionable:
            findings.unreadable.append(entry.problem or str(entry.path))
    tensors = _both([_tensors(entry, storage, findings) for entry in (one, other)])
    by_checksums = one.manifest is not None and other.manifest is not None
    hidden: set[str] = set()
    files = [
        _files(entry, storage, findings, hidden, read=not by_checksums) for entry in (one, other)
    ]
    files = [_without(found, hidden) for found in files]
    metadata = _both([_metadata(entry, storage, findings) for entry in (one, other)])
    freeze = [_freeze(found.pop("vlm_freeze", None)) for found in metadata]
    for found in metadata:
        found.pop("manifest", None)
    return Difference(
        tensors_added=_added(*tensors),
        tensors_removed=_added(*reversed(tensors)),
        tensors_changed=_changed(*tensors, show=_describe),
        files_added=_added(*files),
        files_removed=_added(*reversed(files)),
        files_changed=tuple(_changed(*files, show=str)),
        metadata=_unequal(*metadata),
        freeze=_unequal(*freeze),
        compared_by="checksums" if by_checksums else "bytes",
        problems=tuple(findings.problems),
        unreadable=tuple(findings.unreadable),
    )


def _both(found: list[dict[str, T] | None]) -> list[dict[str, T]]:
    """Returns two empty sides if one could not be read, so that nothing seems to differ."""
    return [{} if one is None or None in found else one for one in found]


def _tensors(entry: Entry, storage: Storage, findings: Findings) -> dict[str, Tensor] | None:
    try:
        return read_contents(entry.path, storage).tensors
    except (CheckpointError, OSError) as error:
        findings.note(error, str(error))
        return {} if shows_damage(error) else None


def _metadata(entry: Entry, storage: Storage, findings: Findings) -> dict[str, Any] | None:
    try:
        return read_metadata(entry.path, storage)
    except CheckpointError as error:
        findings.note(error, str(error))
        return None


def _files(
    entry: Entry, storage: Storage, findings: Findings, hidden: set[str], *, read: bool
) -> dict[str, FileRecord]:
    """Returns size and checksum of files that hold state; adds unreadable ones to ``hidden``."""
    if entry.manifest is not None and not read:
        return {
            name: record
            for name, record in entry.manifest.files.items()
            if name.rpartition("/")[2] not in _ABOUT_THE_SAVE
        }
    records = {}
    found = walk(entry.path)
    findings.unreadable.extend(f"{entry.path.name}/{one}" for one in found.unreadable)
    hidden.update(one.partition(": ")[0] for one in found.unreadable)
    for name in found.files:
        if name.rpartition("/")[2] in _ABOUT_THE_SAVE:
            continue
        try:
            records[name] = storage.checksum(entry.path / name)
        except OSError as error:
            findings.note(error, f"{entry.path / name}: {error.strerror or error}")
            if not shows_damage(error):
                hidden.add(name)
    return records


def _without(files: Mapping[str, FileRecord], hidden: Collection[str]) -> dict[str, FileRecord]:
    """Drops the hidden files, and all files in hidden folders (``ranks/``)."""
    folders = tuple(name for name in hidden if name.endswith("/"))
    return {
        name: record
        for name, record in files.items()
        if name not in hidden and not name.startswith(folders) and "." not in hidden
    }


def _freeze(value: Any) -> dict[str, bool]:
    """Maps module to frozen, from the list in ``metadata.json``; ignores malformed entries."""
    entries = value if isinstance(value, list) else []
    return {
        str(entry["module"]): bool(entry["frozen"])
        for entry in entries
        if isinstance(entry, dict) and {"module", "frozen"} <= set(entry)
    }


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(set(other) - set(one)))


def _changed(
    one: Mapping[str, Any], other: Mapping[str, Any], *, show: Callable[[Any], str]
) -> dict[str, tuple[str, str]]:
    return {
        name: (show(one[name]), show(other[name]))
        for name in sorted(set(one) & set(other))
        if one[name] != other[name]
    }


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (one.get(name), other.get(name))
        for name in sorted(set(one) | set(other))
        if one.get(name) != other.get(name)
    }


def _describe(tensor: Tensor) -> str:
    return f"{tensor.dtype}{list(tensor.shape)}"
