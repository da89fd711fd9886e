"""Verifies a checkpoint's files before a load, and remembers which need not be verified again.

A training loop resolves a path and then loads it, in one process. A file that the first step has
read and found intact is not read again by the second, as long as it is the same file: same save,
name, size, inode and times of change. A file that changed within the last seconds before it was
verified is never remembered, because another change so soon may not alter its times.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from kempnerforge.checkpoint.errors import of_read
from kempnerforge.checkpoint.format.manifest import FileRecord, Manifest, require_same
from kempnerforge.checkpoint.protocol.catalog import verify_checksums
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.storage import Stamp

__all__ = ["LoadReport", "Verifier", "VerifyPolicy", "verify_files"]

# Coarser than the time stamps of any common file system (ext3, HFS+ and NFSv2: 1 s; FAT: 2 s).
_SETTLED_S = 3.0


class VerifyPolicy(StrEnum):
    """How much is compared with the manifest before anything is loaded."""

    full = "full"
    """Size and checksum of every file; each rank reads its verification partition."""
    sizes = "sizes"
    """Presence and size of every file."""
    off = "off"
    """Only the integrity of the manifest itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """The outcome of a manager's last ``load``; the same on every rank, except for ``dataloader``
    in the last two fields."""

    path: Path
    """The checkpoint that was loaded."""
    step: int
    passed_over: tuple[str, ...]
    """Name and problem of each newer candidate that could not be used; empty if the first was."""
    verified: VerifyPolicy
    """How its files were verified. A checkpoint without a manifest has no checksums: only presence
    and length of its shards were checked."""
    not_saved: tuple[str, ...] = ()
    """``scheduler`` and ``dataloader``, if one was passed to the load or to
    ``apply_dataloader_state`` but the checkpoint has no state for it."""
    not_restored: tuple[str, ...] = ()
    """``scheduler`` and ``dataloader``, if the checkpoint has a state for it that nothing took; and
    flat names (``model.head.weight``) of values that no rank's model or optimizer has a place for,
    a few hundred at most. The position of a dataloader is included only from the first save on,
    because a loader can be created after the load."""

    def with_missing(self, name: str) -> "LoadReport":
        """Returns a copy with one more name that the checkpoint has no state for."""
        return replace(self, not_saved=(*self.not_saved, name))

    def with_left(self, name: str) -> "LoadReport":
        """Returns a copy with one more name whose state nothing took."""
        return replace(self, not_restored=(*self.with_restored(name).not_restored, name))

    def with_restored(self, name: str) -> "LoadReport":
        """Returns a copy for a state that was taken after all."""
        return replace(self, not_restored=tuple(n for n in self.not_restored if n != name))


def verify_files(
    path: Path, manifest: Manifest, files: Iterable[tuple[str, FileRecord]], runtime: Runtime
) -> None:
    """Reads files of a checkpoint and compares them with its manifest, unless known to be intact.

    Raises:
        CorruptCheckpointError: A file differs or is missing.
        UnreadableCheckpointError: A file cannot be read at present.
    """
    for name, record in files:
        known = _Known(runtime, path / name, (manifest.save_id, name, record))
        if not known.is_intact():
            before = known.stamp()
            verify_checksums(path, [(name, record)], runtime.storage)
            known.remember(before)


class Verifier:
    """Reads one checkpoint on one rank, and compares what is read with the manifest.

    A rank verifies everything that it parses, so damage is never mistaken for another model or
    other settings. :meth:`finish` reads the rest of the rank's verification partition.

    Args:
        path: The checkpoint.
        manifest: The manifest; None for a checkpoint without one, and then nothing is compared.
        partition: This rank's verification partition; empty unless the policy is full.
        full: Whether to compare contents.
        runtime: The effects of this call.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest | None,
        *,
        partition: Mapping[str, FileRecord],
        full: bool,
        runtime: Runtime,
    ) -> None:
        self._path, self._manifest, self._runtime = path, manifest, runtime
        self._files = manifest.files if manifest is not None and full else {}
        self._left = dict(partition)

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            CorruptCheckpointError: It is missing, or differs from what was saved.
            UnreadableCheckpointError: It cannot be read at present.
        """
        try:
            data = self._runtime.storage.read(self._path / name)
        except (OSError, MemoryError) as error:
            raise of_read(error, self._path / name, path=self._path) from error
        if name in self._files:
            require_same(self._path, name, FileRecord.of(data), self._files[name])
            self._left.pop(name, None)
        return data

    def expected(self, name: str) -> FileRecord | None:
        """Returns the expected record of a file; None if it is verified, or another rank's task.

        A caller that reads the file in full and finds it intact calls :meth:`found_intact`.
        """
        record = self._left.get(name)
        if record is None or self._manifest is None:
            return None
        known = _Known(self._runtime, self._path / name, (self._manifest.save_id, name, record))
        return None if known.is_intact() else record

    def found_intact(self, name: str) -> None:
        """Records that a file of the partition was read in full and is as expected."""
        self._left.pop(name, None)

    def below(self, folder: str) -> "FolderVerifier":
        """Returns a verifier for names within a folder, such as ``pp1/``."""
        return FolderVerifier(self, folder)

    def finish(self) -> None:
        """Reads the rest of the partition.

        Raises:
            CorruptCheckpointError: A file differs from what was saved.
            UnreadableCheckpointError: A file cannot be read at present.
        """
        if self._manifest is not None:
            verify_files(self._path, self._manifest, self._left.items(), self._runtime)
        self._left = {}


@dataclass(frozen=True, slots=True)
class FolderVerifier:
    """A :class:`Verifier` for the files of one folder, by their names in it."""

    files: Verifier
    folder: str

    def expected(self, name: str) -> FileRecord | None:
        """See :meth:`Verifier.expected`."""
        return self.files.expected(self.folder + name)

    def found_intact(self, name: str) -> None:
        """See :meth:`Verifier.found_intact`."""
        self.files.found_intact(self.folder + name)


@dataclass(frozen=True, slots=True)
class _Known:
    """The memory that this process has of one file of a checkpoint."""

    runtime: Runtime
    file: Path
    key: tuple[str, str, FileRecord]

    def is_intact(self) -> bool:
        """Whether it was verified, and is still the same file."""
        intact = self.runtime.process.intact.get(self.key)
        return intact is not None and intact == self.stamp()

    def remember(self, before: Stamp | None) -> None:
        """Records that it was found intact, unless it may have changed while it was read."""
        if before is None or not self._has_settled(before) or self.stamp() != before:
            return
        if (
            self.runtime.storage.read_link(self.file) is None
        ):  # the target of a link can change separately
            self.runtime.process.intact[self.key] = before

    def stamp(self) -> Stamp | None:
        try:
            return self.runtime.storage.stamp(self.file)
        except OSError:  # not remembered, so it is read, which shows what is wrong
            return None

    def _has_settled(self, stamp: Stamp) -> bool:
        newest_s = max(stamp[3:]) / 1e9
        return self.runtime.clock.time() - newest_s > _SETTLED_S
