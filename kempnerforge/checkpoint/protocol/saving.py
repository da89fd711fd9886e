"""One save, from staged state to a published checkpoint, as every rank runs it.

Two rounds of agreement::

    propose   every rank: its plan, its step            rank 0: merged plans, staging directory
    write     every rank writes its shards and its rank file, fsynced
    report    every rank: files and checksums           rank 0: seal, publish, retire

A rank that fails reports it in the next round, so all ranks raise the same error. A deadline counts
from the first round; the fractions below leave each later wait time to end before it. Calls that
touch storage run in a :class:`Worker`, so a rank whose storage hangs still reports.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.bulk.plans import Merged, PlanBook, assign
from kempnerforge.checkpoint.bulk.shards import WrittenShards, write_shards
from kempnerforge.checkpoint.errors import (
    CheckpointError,
    CheckpointSaveError,
    DirectoryInUseError,
    RankFailure,
    Refusal,
    StillPublishedError,
    StorageTimeoutError,
    describe,
    naming,
)
from kempnerforge.checkpoint.format import layout
from kempnerforge.checkpoint.format.manifest import FileRecord, Head, Manifest
from kempnerforge.checkpoint.protocol import prune
from kempnerforge.checkpoint.protocol.announced import announce
from kempnerforge.checkpoint.protocol.catalog import look_at
from kempnerforge.checkpoint.protocol.commit import Commit, new_save_id, under_way
from kempnerforge.checkpoint.protocol.identity import AnyDirectory, Identity, failure_to_confirm
from kempnerforge.checkpoint.protocol.pointer import PointerKind
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
from kempnerforge.checkpoint.protocol.visibility import await_made
from kempnerforge.checkpoint.runtime.collective import Collective, Votes
from kempnerforge.checkpoint.runtime.lock import Unlocked, WriteAccess
from kempnerforge.checkpoint.runtime.stale import again_if_stale
from kempnerforge.checkpoint.runtime.storage import Storage, at_once
from kempnerforge.checkpoint.runtime.worker import Worker
from kempnerforge.checkpoint.state import own_values
from kempnerforge.checkpoint.state.rank_state import Arrangement, all_meshes

__all__ = ["SaveJob"]

logger = logging.getLogger(__name__)

# Shares of commit_timeout_s. Rank 0 waits for votes longer than a rank may write, and the others
# wait for its answer longer than it may wait for votes and publish, so whoever is late is named by
# the one that waited for it, and not rank 0 by all. Writing and the answer to it fit in the whole.
_WRITE_SHARE = 0.3
_VOTE_SHARE = 0.35
_PUBLISH_SHARE = 0.2
_ANSWER_SHARE = 0.65

_Delete = Callable[[tuple[Path, ...], Storage], None]
"""How directories go: :func:`prune.remove` or :func:`prune.delete`."""


@dataclass(slots=True, kw_only=True)
class _RootSave:
    """Rank 0's state between the rounds."""

    commit: Commit
    merged: Merged
    arrangement: Arrangement
    has_rank_values: bool
    retired: tuple[Path, ...] = ()
    """Directories to remove even if the save failed."""


@dataclass(slots=True, kw_only=True)
class SaveJob:
    """One attempt to save; :meth:`run` once, in any one thread.

    ``worker`` is closed when the job ends.
    """

    collective: Collective
    storage: Storage
    worker: Worker
    root: Path
    stage: int | None
    request: SaveRequest
    staged: StagedState | RankFailure
    retention: RetentionPolicy
    timeout_s: float
    access: WriteAccess = field(default_factory=Unlocked)
    identity: Identity = field(default_factory=AnyDirectory)
    latest: PointerKind = PointerKind.link
    """The kind of ``latest``: a link or a file."""
    damaged: Collection[str] = ()
    """Save ids that retention does not count."""
    plans: PlanBook = field(default_factory=PlanBook)
    """The same one in each save of a rank; a new one costs time only, if all ranks have one."""
    register: Register = field(default_factory=Register)
    """The same one in each save of a rank; a new one costs time only."""
    save_id: str = field(default_factory=new_save_id)
    """Rank 0's counts."""

    def run(self) -> Published:
        """Save.

        Raises:
            CheckpointSaveError: Or another of the family; the same on every rank that lives.
        """
        place = naming(self._doing, step=self.request.step, path=str(self.root))
        with under_way(self.save_id), self.worker, place:
            return self._run()

    @property
    def _doing(self) -> str:
        return f"saving step {self.request.step} to {self.root}"

    def _run(self) -> Published:
        vote_s, answer_s = _VOTE_SHARE * self.timeout_s, _ANSWER_SHARE * self.timeout_s
        votes = self.collective.collect(self._proposal(), timeout_s=vote_s)
        opened = self._open(votes) if votes else None
        replies = None if opened is None else self._replies(opened)
        assignment = self._accepted(self.collective.answer(replies, timeout_s=answer_s))

        votes = self.collective.collect(self._write(assignment), timeout_s=vote_s)
        published = None
        if votes and opened is not None and not isinstance(opened, Refusal):
            published = self._publish(opened[0], votes)
        replies = None if published is None else self._same_for_all(published[0])
        reply = self.collective.answer(replies, timeout_s=answer_s)
        if published is not None:
            delete = prune.delete if isinstance(published[0], Published) else prune.remove
            self._remove(published[1], delete)
        outcome: Published = self._accepted(reply)
        return outcome

    def _accepted(self, reply: Any) -> Any:
        if isinstance(reply, Refusal):
            raise reply.error()
        return reply

    def _refuse(self, failures: tuple[RankFailure, ...]) -> Refusal:
        return Refusal(
            failures=failures,
            doing=self._doing,
            default=CheckpointSaveError,
            step=self.request.step,
            path=str(self.root),
        )

    def _same_for_all(self, reply: object) -> list[object]:
        return [reply] * self.collective.world_size

    def _failure(self, error: BaseException) -> RankFailure:
        logger.error("saving step %d: %s", self.request.step, error, exc_info=error)
        return describe(error, self.collective.rank)

    # Round one: propose.

    def _proposal(self) -> Proposal:
        staged, step = self.staged, self.request.step
        failure = staged if isinstance(staged, RankFailure) else self._confirm()
        if isinstance(staged, RankFailure) or failure is not None:
            return Proposal(step=step, stage=self.stage, failure=failure)
        return Proposal(
            step=step,
            stage=self.stage,
            plan=self.plans.propose(staged.shards),
            meshes=staged.meshes,
            digests=staged.digests,
            has_own_values=staged.has_own_values,
        )

    def _confirm(self) -> RankFailure | None:
        """Each rank sees whether the directory is the one that it knows."""
        rank, timeout_s = self.collective.rank, self.timeout_s
        return failure_to_confirm(
            self.identity, self.storage, self.worker, rank=rank, timeout_s=timeout_s
        )

    def _open(self, votes: Votes) -> tuple[_RootSave, list[Assignment]] | Refusal:
        failures = votes.failures(Proposal, self._doing) + self._disagreements(votes)
        if failures:
            return self._refuse(failures)
        try:
            return self.worker.run(
                lambda: self._open_for(votes.values),
                timeout_s=_PUBLISH_SHARE * self.timeout_s,
                doing=f"creating a staging directory in {self.root}",
            )
        except Exception as error:  # noqa: BLE001  # becomes the error of every rank
            return self._refuse((self._failure(error),))

    def _disagreements(self, votes: Votes) -> tuple[RankFailure, ...]:
        return tuple(
            RankFailure(
                rank=rank,
                kind=CheckpointSaveError.__name__,
                message=f"it saves step {proposal.step}, rank 0 saves step {self.request.step}",
            )
            for rank, proposal in enumerate(votes.values)
            if isinstance(proposal, Proposal) and proposal.step != self.request.step
        )

    def _open_for(self, proposals: Sequence[Proposal]) -> tuple[_RootSave, list[Assignment]]:
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
        plans = [proposal.plan for proposal in proposals if proposal.plan is not None]
        merged = self.plans.merge(plans, ranks_of)
        commit = self._begin_commit(stages)
        differing = own_values.differing(proposal.digests for proposal in proposals)
        assignments = [
            Assignment(
                save_id=commit.save_id,
                plan=assign(merged, rank, plan),
                stages=stages,
                differing=differing,
            )
            for rank, plan in enumerate(plans)
        ]
        opened = _RootSave(
            commit=commit,
            merged=merged,
            arrangement=arrangement,
            has_rank_values=bool(differing)
            or any(merged.differing.values())
            or any(proposal.has_own_values for proposal in proposals),
        )
        return opened, assignments

    def _begin_commit(self, stages: tuple[int, ...] | None) -> Commit:
        if not self.identity.confirm(self.storage):
            self.storage.make_durable_directory(self.root)
        if self.access.require():
            self.register.begin_anew()
        self.identity.require_same()
        commit = self._commit(self.save_id, stages)
        replaced = _replaced(commit, self.storage)
        prune.make_ready(self.root, self.storage, self.register)
        self._require_own(replaced)
        with self.register.own_change(self.root, self.storage):
            commit.require_pointer()
            try:
                commit.open()
            except BaseException:
                prune.remove((commit.staging,), self.storage)
                raise
        return commit

    def _commit(self, save_id: str, stages: tuple[int, ...] | None) -> Commit:
        return Commit(
            storage=self.storage,
            root=self.root,
            step=self.request.step,
            save_id=save_id,
            stages=stages,
            latest=self.latest,
        )

    def _replies(self, opened: tuple[_RootSave, list[Assignment]] | Refusal) -> Sequence[object]:
        return self._same_for_all(opened) if isinstance(opened, Refusal) else opened[1]

    # Between the rounds: write.

    def _write(self, assignment: Assignment) -> Report:
        try:
            shards, files = self.worker.run(
                lambda: self._write_files(assignment),
                timeout_s=_WRITE_SHARE * self.timeout_s,
                doing=f"writing step {self.request.step} to {self.root}",
            )
        except Exception as error:  # noqa: BLE001  # becomes the error of every rank
            return Report(shards=None, files={}, failure=self._failure(error))
        return Report(shards=shards, files=files, failure=None)

    def _write_files(
        self, assignment: Assignment
    ) -> tuple[WrittenShards, Mapping[str, FileRecord]]:
        assert isinstance(self.staged, StagedState)
        self.identity.require_same()
        staging = self._commit(assignment.save_id, assignment.stages).staging
        prefix = "" if self.stage is None else f"{layout.format_stage(self.stage)}/"
        await_made(staging / prefix, self.storage)
        plan = self.plans.accept(self.staged.shards, assignment.plan)
        own: dict[str, FileRecord] = {}
        write = partial(
            write_shards,
            staging / prefix,
            plan,
            self.staged.shards,
            meanwhile=lambda: own.update(
                self._write_own_files(staging, staging / prefix, assignment.differing)
            ),
        )
        shards = again_if_stale(write, staging / prefix)
        return shards, {**{prefix + name: record for name, record in shards.files.items()}, **own}

    def _write_own_files(
        self, staging: Path, shards: Path, differing: Collection[str]
    ) -> dict[str, FileRecord]:
        """Writes the files that are no shards: this rank's state, and on rank 0 the common state.

        Makes all names of this rank's files durable, that of its shard in ``shards`` too. Those of
        rank 0 wait for :meth:`Commit.seal`, which syncs the same folders from the same machine.
        """
        assert isinstance(self.staged, StagedState)
        mine = own_values.with_differing(self.staged.rank_state, self.staged.train_state, differing)
        contents = {layout.format_rank_file(self.collective.rank): mine}
        if self.collective.rank == 0:
            contents[layout.TRAIN_STATE] = self.staged.train_state
        at_once(*(partial(self.storage.write, staging / name, contents[name]) for name in contents))
        folders = dict.fromkeys((shards, staging / layout.RANKS_DIR))
        if self.collective.rank != 0:
            at_once(*(partial(self.storage.sync_directory, folder) for folder in folders))
        return {name: FileRecord.of(data) for name, data in contents.items()}

    # Round two: report, and on rank 0 publish.

    def _publish(
        self, opened: _RootSave, votes: Votes
    ) -> tuple[Published | Refusal, tuple[Path, ...]]:
        """The answer to all ranks, and directories to remove once it is given."""
        failures = votes.failures(Report, self._doing)
        if not failures:
            try:
                published = self.worker.run(
                    lambda: self._seal_and_publish(opened, votes.values),
                    timeout_s=_PUBLISH_SHARE * self.timeout_s,
                    doing=f"publishing step {self.request.step} in {self.root}",
                )
            except Exception as error:  # noqa: BLE001  # becomes the error of every rank
                failures = (self._failure(_in_doubt(error)),)
            else:
                result = Published(step=self.request.step, save_id=opened.commit.save_id)
                return result, published
        return self._refuse(failures), (opened.commit.staging, *opened.retired)

    def _seal_and_publish(self, opened: _RootSave, reports: Sequence[Report]) -> tuple[Path, ...]:
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
            sequence=self.register.recall(self.root, self.storage).next_sequence(),
            parent=_living_parent(replaced_head, self.request),
            world_size=self.collective.world_size,
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
        self.identity.require_same()
        try:
            replaced = commit.publish()
        except StillPublishedError:
            opened.retired = self._retire(None)  # or the disk would fill
            raise
        self.identity.require_same()
        announce(self.root, sealed.head)
        retired = self._retire(sealed.head)
        return retired if replaced is None else (replaced, *retired)

    def _require_own(self, replaced: Head | None) -> None:
        """Another job's checkpoint is not replaced: it may be all that that one has."""
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
        """Retention; the save is durable by now, so a failure here is no failure of the save.

        Nor is the loss of the directory to another job, which the next save is refused for. Where
        it is not certain that the checkpoint was published, what there is is looked at.
        """
        try:
            if published is None:
                self.register.look(self.root, self.storage)
            else:
                self.register.committed(self.root, self.storage, published)
            retired = prune.retire(
                self.root,
                self.register,
                self.retention,
                self.storage,
                just_saved=self.request.step,
                damaged=self.damaged,
            )
            self.register.leave_note(self.root, self.storage)
        except (OSError, MemoryError, DirectoryInUseError) as error:
            logger.warning("retention in %s is left to the next save: %s", self.root, error)
            return ()
        return retired

    def _remove_and_note(self, paths: tuple[Path, ...], delete: _Delete) -> None:
        with self.register.own_change(self.root, self.storage):
            delete(paths, self.storage)
        self.register.leave_note(self.root, self.storage)

    def _remove(self, paths: tuple[Path, ...], delete: _Delete) -> None:
        """Clean up; what does not work is left to the next save, which does it again."""
        if not paths or self.worker.stuck:
            return
        try:
            self.worker.run(
                lambda: self._remove_and_note(paths, delete),
                timeout_s=_PUBLISH_SHARE * self.timeout_s,
                doing=f"removing {', '.join(path.name for path in paths)}",
            )
        except (CheckpointError, OSError) as error:
            logger.warning("left to the next save: %s", error)


def _in_doubt(error: Exception) -> Exception:
    """The error of a publication; of one that was given up on, nobody knows what it has done."""
    if not isinstance(error, StorageTimeoutError):
        return error
    doubt = "whether the checkpoint is there is not known; the next start takes what `latest` names"
    return StorageTimeoutError(f"{error}; {doubt}")


def _replaced(commit: Commit, storage: Storage) -> Head | None:
    """The head of the manifest that a save is going to replace; None if there is none.

    Raises:
        UnreadableCheckpointError: It cannot be read at present, so it is not replaced.
        NewerFormatError: It was written by a newer version of this package.
    """
    entry = look_at(commit.target, storage, heads=True)
    if entry is not None and entry.is_questionable:
        entry.refuse()
    return None if entry is None else entry.head


def _living_parent(replaced: Head | None, request: SaveRequest) -> str | None:
    """The parent of a save, which is its parent's parent where it replaces its parent."""
    if replaced is not None and replaced.save_id == request.parent:
        return replaced.parent
    return request.parent
