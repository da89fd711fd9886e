"""How much of a checkpoint is verified before it is loaded, and what need not be verified again.

A training loop resolves a path and then loads it, in one process. What the first of the two has
read and found intact, the second does not read again, as long as the file is the same: same save,
same name, size, inode and times of change. A file that changed within the last seconds before it
was verified is never remembered, because another change so soon could leave its times as they are.
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

# Coarser than the time stamps of any file system in use (ext3, HFS+ and NFSv2: 1 s; FAT: 2 s).
_SETTLED_S = 3.0


class VerifyPolicy(StrEnum):
    """How much is compared with the manifest before anything is loaded."""

    full = "full"
    """Size and checksum of every file; each rank reads its verification partition."""
    sizes = "sizes"
    """That every file is there with its size."""
    off = "off"
    """Only that the manifest itself is intact."""


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
    """How its files were verified. A checkpoint without a manifest has no checksums: its shards
    were checked for presence and length only."""
    not_saved: tuple[str, ...] = ()
    """``scheduler`` and ``dataloader`` where one was given, to the load or to
    ``apply_dataloader_state``, and the checkpoint has no state of it."""
    not_restored: tuple[str, ...] = ()
    """The same where the checkpoint has a state and nothing took it, and flat names
    (``model.head.weight``) of values that no rank's model or optimizer has a place for, a few
    hundred at most. The position of a dataloader is one of them only from the first save on,
    because a loader may be made after the load."""

    def with_missing(self, name: str) -> "LoadReport":
        """The same with one more that the checkpoint has no state of."""
        return replace(self, not_saved=(*self.not_saved, name))

    def with_left(self, name: str) -> "LoadReport":
        """The same with one more that nothing took."""
        return replace(self, not_restored=(*self.with_restored(name).not_restored, name))

    def with_restored(self, name: str) -> "LoadReport":
        """The same with one that was taken after all."""
        return replace(self, not_restored=tuple(n for n in self.not_restored if n != name))


def verify_files(
    path: Path, manifest: Manifest, files: Iterable[tuple[str, FileRecord]], runtime: Runtime
) -> None:
    """Read files of a checkpoint and compare them with its manifest, unless that is known.

    Raises:
        CorruptCheckpointError: One differs or is missing.
        UnreadableCheckpointError: One cannot be read at present.
    """
    for name, record in files:
        known = _Known(runtime, path / name, (manifest.save_id, name, record))
        if not known.is_intact():
            before = known.stamp()
            verify_checksums(path, [(name, record)], runtime.storage)
            known.remember(before)


class Verifier:
    """Reads one checkpoint on one rank, comparing with the manifest what is read.

    What a rank parses it has compared itself, so damage is never taken for another model or other
    settings. Of its partition, what it has not read by the end is read by :meth:`finish`.

    Args:
        path: The checkpoint.
        manifest: None for one without; then nothing is compared.
        share: What this rank answers for; empty unless the policy is full.
        full: Whether contents are compared.
        runtime: The effects of this call.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest | None,
        *,
        share: Mapping[str, FileRecord],
        full: bool,
        runtime: Runtime,
    ) -> None:
        self._path, self._manifest, self._runtime = path, manifest, runtime
        self._files = manifest.files if manifest is not None and full else {}
        self._left = dict(share)

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            CorruptCheckpointError: It is missing, or is not what was saved.
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
        """The expected record of a file; None if it is known, or another rank's to compare.

        A caller that reads the file in full and finds it so says :meth:`found_intact`.
        """
        record = self._left.get(name)
        if record is None or self._manifest is None:
            return None
        known = _Known(self._runtime, self._path / name, (self._manifest.save_id, name, record))
        return None if known.is_intact() else record

    def found_intact(self, name: str) -> None:
        """A file of the share was read in full and is as expected."""
        self._left.pop(name, None)

    def below(self, folder: str) -> "FolderVerifier":
        """The same for names within a folder, such as ``pp1/``."""
        return FolderVerifier(self, folder)

    def finish(self) -> None:
        """Read what is left of the share.

        Raises:
            CorruptCheckpointError: A file is not what was saved.
            UnreadableCheckpointError: One cannot be read at present.
        """
        if self._manifest is not None:
            verify_files(self._path, self._manifest, self._left.items(), self._runtime)
        self._left = {}


@dataclass(frozen=True, slots=True)
class FolderVerifier:
    """:class:`Verifier` for the files of one folder, by their names in it."""

    files: Verifier
    folder: str

    def expected(self, name: str) -> FileRecord | None:
        """As :meth:`Verifier.expected`."""
        return self.files.expected(self.folder + name)

    def found_intact(self, name: str) -> None:
        """As :meth:`Verifier.found_intact`."""
        self.files.found_intact(self.folder + name)


@dataclass(frozen=True, slots=True)
class _Known:
    """The knowledge that this process has of one file of a checkpoint."""

    runtime: Runtime
    file: Path
    key: tuple[str, str, FileRecord]

    def is_intact(self) -> bool:
        """Whether it was verified, and is the same file still."""
        intact = self.runtime.process.intact.get(self.key)
        return intact is not None and intact == self.stamp()

    def remember(self, before: Stamp | None) -> None:
        """Note that it was found intact, unless it may have changed while it was read."""
        if before is None or not self._has_settled(before) or self.stamp() != before:
            return
        if self.runtime.storage.read_link(self.file) is None:  # what it leads to may change alone
            self.runtime.process.intact[self.key] = before

    def stamp(self) -> Stamp | None:
        try:
            return self.runtime.storage.stamp(self.file)
        except OSError:  # nothing is remembered of it, so it is read, which tells what is wrong
            return None

    def _has_settled(self, stamp: Stamp) -> bool:
        newest_s = max(stamp[3:]) / 1e9
        return self.runtime.clock.time() - newest_s > _SETTLED_S
