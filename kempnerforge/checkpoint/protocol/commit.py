"""Rank 0's part of a save: turns the files in a staging directory into a checkpoint.

The operations, in this order::

    open      create {dir}/.staging-step_N-<id> and its folders           (then all ranks write)
    seal      check that every reported file exists; write .metadata, metadata.json and the
              manifest, fsynced; fsync every folder
    publish   create the new latest, hidden; rename to step_N, fsync {dir}; swap latest,
              fsync {dir}; read latest back

Fault model: a process is killed, or the machine loses power, between any two operations. Before the
rename, a save is a directory without a checkpoint's name; after the rename it is whole. ``latest``
is replaced by a rename, so it names either the old or the new checkpoint, and both are whole.

If an operation of ``publish`` fails, those before it are undone, so that the save has published
nothing and ``latest`` is unchanged. If undoing fails as well, the checkpoint stays, and the error
says so (:class:`StillPublishedError`).

Saving a step that exists: the two directories swap names in one operation (``RENAME_EXCHANGE``), so
``step_N`` is the old or the new version at every instant. If the file system cannot swap names, the
versions are renamed one after the other and ``latest`` follows them (:mod:`replacing`): at every
instant it leads to a whole version, which has a hidden name for a moment.

Out of scope: file systems that reorder fsynced operations. :mod:`lock` keeps other jobs out of the
directory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.errors import (
    CheckpointError,
    CheckpointSaveError,
    StillPublishedError,
    shows_damage,
)
from kempnerforge.checkpoint.format import layout, manifest
from kempnerforge.checkpoint.format.layout import Leftover, LeftoverKind
from kempnerforge.checkpoint.format.manifest import FileRecord, Manifest
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.pointer import (
    Pointer,
    PointerKind,
    require_possible,
    resolve_pointer,
)
from kempnerforge.checkpoint.protocol.replacing import (
    CannotExchangeError,
    Move,
    Replacement,
    find_unfinished,
    has_name,
    replace,
)
from kempnerforge.checkpoint.protocol.storage import Storage

__all__ = ["Commit"]

# Network file systems can show another client's new file late; the sum is the least time for which
# NFS caches attributes by default (3 s).
_VISIBILITY_RETRIES_S = (0.02, 0.1, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One save, until it becomes a checkpoint."""

    runtime: Runtime
    root: Path
    step: int
    save_id: str
    stages: tuple[int, ...] | None
    latest: PointerKind = PointerKind.link
    """The kind of ``latest``: a link or a file."""

    @property
    def storage(self) -> Storage:
        """The storage of the directory."""
        return self.runtime.storage

    @property
    def staging(self) -> Path:
        """The directory that the ranks write to."""
        leftover = Leftover(kind=LeftoverKind.staging, step=self.step, save_id=self.save_id)
        return self.root / layout.format_leftover(leftover)

    @property
    def target(self) -> Path:
        """The final name of the checkpoint."""
        return self.root / layout.format_step(self.step)

    def require_pointer(self) -> None:
        """Checks, before anything is written, that ``latest`` can be created here.

        Raises:
            UnsupportedStorageError: A link is configured, but links are not supported.
        """
        require_possible(self.root, self.storage, self.latest, save_id=self.save_id)

    def open(self) -> None:
        """Creates the staging directory and its folders, which begins the save on disk."""
        for folder in self._folders():
            self.storage.make_directory(folder)

    def seal(
        self,
        *,
        shard_metadata: Mapping[str, bytes],
        metadata: Mapping[str, Any],
        written: Mapping[str, FileRecord],
        sealed: Manifest,
    ) -> None:
        """Completes the staging directory and makes it durable.

        Args:
            shard_metadata: Content of each ``.metadata``, by relative path.
            metadata: Content of ``metadata.json``.
            written: The files that the ranks report, by relative path.
            sealed: The manifest, without its files.
        """
        for name, record in written.items():
            self._require_visible(name, record)
        text = json.dumps({**metadata, "manifest": self.save_id}, indent=2, sort_keys=True)
        added = {**shard_metadata, layout.METADATA: text.encode() + b"\n"}
        records = {name: FileRecord.of(data) for name, data in added.items()}
        complete = _with_files(sealed, {**written, **records})
        added[layout.MANIFEST] = manifest.encode(complete)
        # The order does not matter, because nothing refers to this directory before the rename.
        at_once = self.runtime.at_once
        at_once(*(partial(self.storage.write, self.staging / name, added[name]) for name in added))
        at_once(*(partial(self.storage.sync_directory, folder) for folder in self._folders()))

    def publish(self) -> Path | None:
        """Makes the sealed directory the checkpoint of its step and points ``latest`` at it.

        Returns:
            An older version of the step, set aside under a hidden name, or None.

        Raises:
            CheckpointSaveError: Publication failed and was undone.
            StillPublishedError: Publication failed, but the checkpoint exists.
        """
        pointer = Pointer(
            root=self.root, runtime=self.runtime, save_id=self.save_id, kind=self.latest
        )
        try:
            return self._publish(Replacement(step=self.step, save_id=self.save_id), pointer)
        except OSError as error:
            raise self._unpublished(error, pointer) from error

    def _publish(self, replacement: Replacement, pointer: Pointer) -> Path | None:
        if self.storage.stamp(self.target) is None:
            replace(replacement.moves_to_free_name(), pointer)
            return None
        try:
            replace(replacement.moves_by_exchange(), pointer)
        except CannotExchangeError:
            replace(self._moves_without_exchange(replacement), pointer)
            return self.root / replacement.old
        return self.staging

    def _moves_without_exchange(self, replacement: Replacement) -> tuple[Move, ...]:
        latest = resolve_pointer(self.root, self.storage)
        named = latest is not None and latest == self.storage.resolve(self.target)
        return replacement.moves() if named else replacement.moves_beside_latest()

    def _unpublished(self, error: OSError, pointer: Pointer) -> CheckpointSaveError:
        """Returns the error that describes what a failed publication has left."""
        doing = f"{self.target} cannot be published: {error}"
        try:
            named = pointer.read()
            half_way = find_unfinished(named)
            left = has_name(pointer, self.target.name) or (
                half_way is not None and half_way.save_id == self.save_id
            )
        except (OSError, CheckpointError) as unseen:
            return StillPublishedError(
                f"{doing}; whether it exists nevertheless cannot be seen at present: {unseen}"
            )
        latest = (
            f"`latest` names {named}, so the next start loads that"
            if named
            else "there is no `latest`, so the next start loads the newest checkpoint that verifies"
        )
        if not left:
            return CheckpointSaveError(f"{doing}; nothing of it is left, and {latest}")
        return StillPublishedError(
            f"{doing}; this cannot be undone, so the checkpoint exists and is whole; {latest}"
        )

    def _folders(self) -> tuple[Path, ...]:
        stages = tuple(self.staging / layout.format_stage(stage) for stage in self.stages or ())
        return (self.staging, *stages, self.staging / layout.RANKS_DIR)

    def _require_visible(self, name: str, record: FileRecord) -> None:
        found: int | str = "missing"
        for delay_s in (*_VISIBILITY_RETRIES_S, None):
            try:
                found = self.storage.size(self.staging / name)
            except OSError as error:
                if not shows_damage(error):
                    raise
                found = error.strerror or str(error)
            if found == record.size:
                return
            if delay_s is not None:
                self.runtime.clock.sleep(delay_s)
        raise CheckpointSaveError(
            f"{self.staging / name}: a rank wrote {record.size} bytes, rank 0 finds: {found}; the "
            "checkpoint directory must be on storage that all ranks share"
        )


def _with_files(sealed: Manifest, files: Mapping[str, FileRecord]) -> Manifest:
    return Manifest(
        save_id=sealed.save_id,
        step=sealed.step,
        tokens_seen=sealed.tokens_seen,
        sequence=sealed.sequence,
        parent=sealed.parent,
        world_size=sealed.world_size,
        stages=sealed.stages,
        layout=sealed.layout,
        files=files,
    )
