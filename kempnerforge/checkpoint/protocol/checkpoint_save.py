"""The save of a checkpoint: what each rank writes, and how rank 0 commits it."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kempnerforge.checkpoint.errors import (
    CheckpointSaveError,
    DirectoryInUseError,
    RankFailure,
    StillPublishedError,
)
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.arrangement import Arrangement, all_meshes
from kempnerforge.checkpoint.format.manifest import FileRecord, Head, Manifest
from kempnerforge.checkpoint.protocol import prune
from kempnerforge.checkpoint.protocol.bulk import MergedPlans
from kempnerforge.checkpoint.protocol.catalog import look_at
from kempnerforge.checkpoint.protocol.commit import Commit
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.pointer import PointerKind
from kempnerforge.checkpoint.protocol.reachable import failure_to_confirm
from kempnerforge.checkpoint.protocol.register import Register
from kempnerforge.checkpoint.protocol.retention import RetentionPolicy
from kempnerforge.checkpoint.protocol.save_messages import (
    Assignment,
    Proposal,
    Published,
    Report,
    SaveRequest,
    StagedState,
)
from kempnerforge.checkpoint.protocol.saving import Words, save
from kempnerforge.checkpoint.protocol.steps import Steps
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.protocol.visibility import await_made

__all__ = ["CheckpointSave", "save_checkpoint"]

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Opened:
    """Rank 0's state between the rounds."""

    commit: Commit
    merged: MergedPlans
    arrangement: Arrangement
    has_rank_values: bool
    retired: tuple[Path, ...] = ()
    """Directories to remove even if the save failed."""


@dataclass(slots=True, kw_only=True)
class CheckpointSave:
    """One rank's :class:`Destination` of a save that becomes a checkpoint."""

    runtime: Runtime
    root: Path
    stage: int | None
    request: SaveRequest
    staged: StagedState | RankFailure
    retention: RetentionPolicy
    register: Register
    """The same object in all saves of a rank; a new one only costs time."""
    save_id: str
    """Only rank 0's is used."""
    latest: PointerKind = PointerKind.link
    """The kind of ``latest``: a link or a file."""
    damaged: Collection[str] = ()
    """Save ids that retention does not count."""

    @property
    def path(self) -> Path:
        return self.root

    @property
    def words(self) -> Words:
        return Words(
            saving=f"saving step {self.step} to {self.root}",
            opening=f"creating a staging directory in {self.root}",
            writing=f"writing step {self.step} to {self.root}",
            completing=f"publishing step {self.step} in {self.root}",
            doubt="whether the checkpoint exists is unknown; the next start loads what `latest` "
            "names",
        )

    @property
    def step(self) -> int:
        return self.request.step

    @property
    def storage(self) -> Storage:
        return self.runtime.storage

    # Round one: propose.

    def propose(self, *, timeout_s: float) -> Steps[Proposal]:
        staged = self.staged
        if isinstance(staged, RankFailure):
            return Proposal(step=self.step, stage=self.stage, failure=staged)
        # Each rank checks that the directory is the one that it knows.
        failure = yield from failure_to_confirm(self.runtime, timeout_s=timeout_s)
        if failure is not None:
            return Proposal(step=self.step, stage=self.stage, failure=failure)
        return Proposal(
            step=self.step,
            stage=self.stage,
            plan=staged.bulk.propose(),
            meshes=staged.meshes,
            digests=staged.digests,
            has_own_values=staged.has_own_values,
        )

    def open(self, proposals: Sequence[Proposal]) -> tuple[_Opened, list[Assignment]]:
        assert isinstance(self.staged, StagedState)
        arrangement = Arrangement(
            stage_of_rank=tuple(proposal.stage for proposal in proposals),
            meshes=all_meshes(proposal.meshes for proposal in proposals),
        )
        named = {stage for stage in arrangement.stage_of_rank if stage is not None}
        if named and None in arrangement.stage_of_rank:
            raise CheckpointSaveError(
                "some ranks have a pipeline stage (pp_rank), others have none"
            )
        stages = tuple(sorted(named)) or None
        ranks_of = {
            stage: arrangement.ranks_of(stage) if stages else tuple(range(len(proposals)))
            for stage in stages or (None,)
        }
        plans = [proposal.plan for proposal in proposals]
        merged = self.staged.bulk.merge(plans, ranks_of)
        commit = self._begin_commit(stages)
        differing = _differing(proposals)
        assignments = [
            Assignment(
                save_id=commit.save_id,
                plan=merged.assign(rank, plan),
                stages=stages,
                differing=differing,
            )
            for rank, plan in enumerate(plans)
        ]
        opened = _Opened(
            commit=commit,
            merged=merged,
            arrangement=arrangement,
            has_rank_values=bool(differing)
            or merged.has_rank_values
            or any(proposal.has_own_values for proposal in proposals),
        )
        return opened, assignments

    def _begin_commit(self, stages: tuple[int, ...] | None) -> Commit:
        runtime = self.runtime
        if not runtime.identity.confirm(self.storage):
            self.storage.make_durable_directory(self.root)
        if runtime.access.require():
            self.register.begin_anew()
        runtime.identity.require_same()
        commit = self._commit(self.save_id, stages)
        replaced = _replaced(commit, self.storage)
        prune.make_ready(self.root, runtime, self.register)
        self._require_own(replaced)
        with self.register.own_change(self.root, self.storage):
            commit.require_pointer()
            try:
                commit.open()
            except BaseException:
                prune.remove((commit.staging,), runtime)
                raise
        return commit

    def _commit(self, save_id: str, stages: tuple[int, ...] | None) -> Commit:
        return Commit(
            runtime=self.runtime,
            root=self.root,
            step=self.request.step,
            save_id=save_id,
            stages=stages,
            latest=self.latest,
        )

    # Between the rounds: write.

    def write(self, assignment: Assignment) -> Report:
        assert isinstance(self.staged, StagedState)
        self.runtime.identity.require_same()
        staging = self._commit(assignment.save_id, assignment.stages).staging
        prefix = "" if self.stage is None else f"{layout.format_stage(self.stage)}/"
        await_made(staging / prefix, self.runtime)
        own: dict[str, FileRecord] = {}
        shards = self.staged.bulk.write(
            staging / prefix,
            assignment.plan,
            meanwhile=lambda: own.update(
                self._write_own_files(staging, staging / prefix, assignment.differing)
            ),
        )
        files = {prefix + name: record for name, record in shards.files.items()}
        return Report(shards=shards, files={**files, **own})

    def _write_own_files(
        self, staging: Path, shards: Path, differing: Collection[str]
    ) -> dict[str, FileRecord]:
        """Writes the files other than shards: this rank's state and, on rank 0, the common state.

        Makes the directory entries of all files of this rank durable, including its shard's in
        ``shards``. On rank 0, :meth:`Commit.seal` does that, which syncs the same folders anyway.
        """
        assert isinstance(self.staged, StagedState)
        rank, at_once = self.runtime.rank, self.runtime.at_once
        contents = {layout.format_rank_file(rank): self.staged.rank_file(differing)}
        if rank == 0:
            contents[layout.TRAIN_STATE] = self.staged.train_state
        at_once(*(partial(self.storage.write, staging / name, contents[name]) for name in contents))
        folders = dict.fromkeys((shards, staging / layout.RANKS_DIR))
        if rank != 0:
            at_once(*(partial(self.storage.sync_directory, folder) for folder in folders))
        return {name: FileRecord.of(data) for name, data in contents.items()}

    # Round two: report, and on rank 0 publish.

    def complete(
        self, opened: _Opened, reports: Sequence[Report]
    ) -> tuple[Published, tuple[Path, ...]]:
        runtime = self.runtime
        commit, stages = opened.commit, opened.commit.stages
        shard_metadata = {}
        for stage, ranks in opened.merged.ranks_of.items():
            written = [shards for rank in ranks if (shards := reports[rank].shards)]
            prefix = "" if stage is None else f"{layout.format_stage(stage)}/"
            shard_metadata[prefix + layout.SHARD_METADATA] = opened.merged.encode(
                stage, written, save_id=commit.save_id
            )
        replaced_head = _replaced(commit, self.storage)
        self._require_own(replaced_head)
        sealed = Manifest(
            save_id=commit.save_id,
            step=self.request.step,
            tokens_seen=self.request.tokens_seen,
            sequence=self.register.recall(self.root, runtime).next_sequence(),
            parent=_living_parent(replaced_head, self.request),
            world_size=runtime.world_size,
            stages=stages,
            layout=opened.arrangement.to_json(),
            files={},
            has_rank_values=opened.has_rank_values,
        )
        commit.seal(
            shard_metadata=shard_metadata,
            metadata=self.request.metadata,
            written={name: record for report in reports for name, record in report.files.items()},
            sealed=sealed,
        )
        runtime.identity.require_same()
        try:
            replaced = commit.publish()
        except StillPublishedError:
            opened.retired = self._retire(None)  # otherwise the disk would fill up
            raise
        runtime.identity.require_same()
        runtime.board.announce(self.root, sealed.head)
        retired = self._retire(sealed.head)
        published = Published(step=self.step, save_id=commit.save_id)
        return published, retired if replaced is None else (replaced, *retired)

    def withdraw(self, opened: _Opened) -> tuple[Path, ...]:
        return opened.commit.staging, *opened.retired

    def remove(self, paths: tuple[Path, ...], *, failed: bool) -> None:
        with self.register.own_change(self.root, self.storage):
            if failed:
                prune.remove(paths, self.runtime)
            else:
                prune.delete(paths, self.runtime)
        self.register.leave_note(self.root, self.storage)

    def _require_own(self, replaced: Head | None) -> None:
        """Refuses to replace another job's checkpoint, which may be the only one it has."""
        if replaced is None or not self.register.is_foreign(replaced):
            return
        raise DirectoryInUseError(
            f"{self.root} is in use by another job: it has committed step {replaced.step} as save "
            f"{replaced.save_id} since this job loaded or first saved, and save {self.save_id} "
            "does not replace it; two jobs must not write to one checkpoint directory: end the "
            "other one, or choose another directory",
            path=str(self.root),
            step=replaced.step,
        )

    def _retire(self, published: Head | None) -> tuple[Path, ...]:
        """Applies retention. The save is durable by now, so a failure here does not fail it.

        Neither does the loss of the directory to another job; the next save is refused then. If it
        is uncertain whether the checkpoint was published, the directory is surveyed again.
        """
        try:
            if published is None:
                self.register.look(self.root, self.runtime)
            else:
                self.register.committed(self.root, self.storage, published)
            retired = prune.retire(
                self.root,
                self.register,
                self.retention,
                self.runtime,
                just_saved=self.request.step,
                damaged=self.damaged,
            )
            self.register.leave_note(self.root, self.storage)
        except (OSError, MemoryError, DirectoryInUseError) as error:
            logger.warning("retention in %s is left to the next save: %s", self.root, error)
            return ()
        return retired


def save_checkpoint(to: CheckpointSave, *, timeout_s: float) -> Steps[Published]:
    """As :func:`save`; until it ends, no other manager of this process removes its files."""
    with to.runtime.process.under_way(to.save_id):
        return (yield from save(to, to.runtime, timeout_s=timeout_s))


def _differing(proposals: Sequence[Proposal]) -> frozenset[str]:
    """Returns the keys for which a rank has another value than rank 0, or rank 0 has none."""
    first = proposals[0].digests
    return frozenset(
        key
        for proposal in proposals
        for key in proposal.digests
        if proposal.digests[key] != first.get(key)
    )


def _replaced(commit: Commit, storage: Storage) -> Head | None:
    """Returns the head of the manifest that a save will replace; None if there is none.

    Raises:
        UnreadableCheckpointError: It cannot be read at present, so it is not replaced.
        NewerFormatError: It was written by a newer version of this package.
    """
    entry = look_at(commit.target, storage, heads=True)
    if entry is not None and entry.is_questionable:
        entry.refuse()
    return None if entry is None else entry.head


def _living_parent(replaced: Head | None, request: SaveRequest) -> str | None:
    """Returns the parent of a save: the parent's parent, if the save replaces its own parent."""
    if replaced is not None and replaced.save_id == request.parent:
        return replaced.parent
    return request.parent
