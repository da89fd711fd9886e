"""One save, from staged state to something durable, as every rank runs it.

Two rounds of agreement::

    propose   every rank: its plan, its step            rank 0: merged plans, a place to write to
    write     every rank writes its shards and its own files, fsynced
    report    every rank: files and checksums           rank 0: completes it, and cleans up

A rank that fails reports it in the next round, so all ranks raise the same error. A deadline counts
from the first round; the fractions below leave each later wait time to end before it. What touches
storage is a :class:`steps.Call`, so a rank whose storage hangs still reports.

Where a save goes is its :class:`Destination`: a checkpoint (:class:`CheckpointSave`), which is
staged, sealed and published (:mod:`commit`), or a bare directory (:mod:`async_save`).
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

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
from kempnerforge.checkpoint.format.arrangement import Arrangement, all_meshes
from kempnerforge.checkpoint.format.manifest import FileRecord, Head, Manifest
from kempnerforge.checkpoint.protocol import prune
from kempnerforge.checkpoint.protocol.bulk import Merged
from kempnerforge.checkpoint.protocol.catalog import look_at
from kempnerforge.checkpoint.protocol.commit import Commit
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.pointer import PointerKind
from kempnerforge.checkpoint.protocol.reachable import failure_to_confirm
from kempnerforge.checkpoint.protocol.register import Register
from kempnerforge.checkpoint.protocol.retention import RetentionPolicy
from kempnerforge.checkpoint.protocol.rounds import V
from kempnerforge.checkpoint.protocol.save_messages import (
    Assignment,
    Proposal,
    Published,
    Report,
    SaveRequest,
    StagedState,
)
from kempnerforge.checkpoint.protocol.steps import (
    RefusedError,
    Round,
    Steps,
    accepted,
    call,
    is_stuck,
)
from kempnerforge.checkpoint.protocol.storage import Storage
from kempnerforge.checkpoint.protocol.visibility import await_made

__all__ = ["CheckpointSave", "Destination", "Words", "save", "save_checkpoint"]

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened")

# Shares of the deadline. Rank 0 waits for votes longer than a rank may write, and the others
# wait for its answer longer than it may wait for votes and publish, so whoever is late is named by
# the one that waited for it, and not rank 0 by all. Writing and the answer to it fit in the whole.
_WRITE_SHARE = 0.3
_VOTE_SHARE = 0.35
_PUBLISH_SHARE = 0.2
_ANSWER_SHARE = 0.65


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a save is doing, for errors."""

    saving: str
    opening: str
    writing: str
    completing: str


class Destination(Protocol[Opened]):
    """Where a save goes; ``Opened`` is rank 0's state between the rounds."""

    @property
    def path(self) -> Path:
        """The directory, for errors."""

    @property
    def words(self) -> Words:
        """What is being done, for errors."""

    @property
    def step(self) -> int | None:
        """For errors."""

    def propose(self, *, timeout_s: float) -> Steps[Proposal]:
        """This rank's vote in the first round."""

    def open(self, proposals: Sequence[Proposal]) -> tuple[Opened, list[Assignment]]:
        """Make a place to write to, and say who writes what; on rank 0."""

    def write(self, assignment: Assignment) -> Report:
        """Write this rank's part."""

    def complete(
        self, opened: Opened, reports: Sequence[Report]
    ) -> tuple[Published, tuple[Path, ...]]:
        """Make what was written count; on rank 0.

        Returns:
            The result, and directories to remove once the ranks have been told.
        """

    def withdraw(self, opened: Opened) -> tuple[Path, ...]:
        """The directories to remove after a save that failed; on rank 0."""

    def remove(self, paths: tuple[Path, ...], *, failed: bool) -> None:
        """Remove directories, of a save that succeeded or failed; on rank 0."""


def save(to: Destination[Opened], runtime: Runtime, *, timeout_s: float) -> Steps[Published]:
    """Save.

    Args:
        to: Where to, with what this rank contributes.
        runtime: The effects of this rank.
        timeout_s: The whole deadline.

    Raises:
        CheckpointSaveError: Or another of the family; the same on every rank that lives.
    """
    with naming(to.words.saving, step=to.step, path=str(to.path)):
        return (yield from _Save(to, runtime, timeout_s).steps())


class _Save(Generic[Opened]):
    """The two rounds."""

    def __init__(self, to: Destination[Opened], runtime: Runtime, timeout_s: float) -> None:
        self._to, self._runtime, self._timeout_s = to, runtime, timeout_s
        self._refusal = Refusal(
            failures=(),
            doing=to.words.saving,
            default=CheckpointSaveError,
            step=to.step,
            path=str(to.path),
        )
        self._opened: list[Opened] = []
        self._published: list[tuple[Published, tuple[Path, ...]]] = []

    def steps(self) -> Steps[Published]:
        proposal = yield from self._to.propose(timeout_s=self._timeout_s)
        proposing: Round[Proposal, Assignment] = self._round(Proposal)
        assignment = accepted((yield from proposing.hold(proposal, self._open)))
        report = yield from self._write(assignment)
        reporting: Round[Report, Published] = self._round(Report)
        reply = yield from reporting.hold(report, self._complete)
        yield from self._clean_up()
        return accepted(reply)

    def _round(self, votes: type[V]) -> Round[V, Any]:
        return Round(
            votes=votes,
            doing=self._to.words.saving,
            refusal=self._refusal,
            vote_s=_VOTE_SHARE * self._timeout_s,
            answer_s=_ANSWER_SHARE * self._timeout_s,
        )

    def _failure(self, error: BaseException) -> RankFailure:
        logger.error("%s: %s", self._to.words.saving, error, exc_info=error)
        return describe(error, self._runtime.rank)

    def _refused(self, error: Exception) -> RefusedError:
        return RefusedError(replace(self._refusal, failures=(self._failure(error),)))

    def _open(self, proposals: Sequence[Proposal]) -> Steps[Sequence[Assignment]]:
        if failures := _disagreements(proposals):
            raise RefusedError(replace(self._refusal, failures=failures))
        try:
            opened, assignments = yield from call(
                lambda: self._to.open(proposals),
                timeout_s=_PUBLISH_SHARE * self._timeout_s,
                doing=self._to.words.opening,
            )
        except Exception as error:
            raise self._refused(error) from error
        self._opened.append(opened)
        return assignments

    def _write(self, assignment: Assignment) -> Steps[Report]:
        try:
            return (
                yield from call(
                    lambda: self._to.write(assignment),
                    timeout_s=_WRITE_SHARE * self._timeout_s,
                    doing=self._to.words.writing,
                )
            )
        except Exception as error:  # noqa: BLE001  # becomes the error of every rank
            return Report(shards=None, files={}, failure=self._failure(error))

    def _complete(self, reports: Sequence[Report]) -> Steps[Sequence[Published]]:
        (opened,) = self._opened
        try:
            done = yield from call(
                lambda: self._to.complete(opened, reports),
                timeout_s=_PUBLISH_SHARE * self._timeout_s,
                doing=self._to.words.completing,
            )
        except Exception as error:
            raise self._refused(_in_doubt(error)) from error
        self._published.append(done)
        return [done[0]] * len(reports)

    def _clean_up(self) -> Steps[None]:
        """Remove what is not needed; what does not work is left to the next save."""
        for opened in self._opened:
            failed = not self._published
            paths = self._to.withdraw(opened) if failed else self._published[0][1]
            if not paths or (yield from is_stuck()):
                continue
            try:
                yield from call(
                    partial(self._to.remove, paths, failed=failed),
                    timeout_s=_PUBLISH_SHARE * self._timeout_s,
                    doing=f"removing {', '.join(path.name for path in paths)}",
                )
            except (CheckpointError, OSError) as error:
                logger.warning("left to the next save: %s", error)


def _disagreements(proposals: Sequence[Proposal]) -> tuple[RankFailure, ...]:
    mine = proposals[0].step
    return tuple(
        RankFailure(
            rank=rank,
            kind=CheckpointSaveError.__name__,
            message=f"it saves step {proposal.step}, rank 0 saves step {mine}",
        )
        for rank, proposal in enumerate(proposals)
        if proposal.step != mine
    )


@dataclass(slots=True, kw_only=True)
class _Opened:
    """Rank 0's state between the rounds."""

    commit: Commit
    merged: Merged
    arrangement: Arrangement
    has_rank_values: bool
    retired: tuple[Path, ...] = ()
    """Directories to remove even if the save failed."""


@dataclass(slots=True, kw_only=True)
class CheckpointSave:
    """A save that becomes a checkpoint; :class:`Destination` of one rank."""

    runtime: Runtime
    root: Path
    stage: int | None
    request: SaveRequest
    staged: StagedState | RankFailure
    retention: RetentionPolicy
    register: Register
    """The same one in each save of a rank; a new one costs time only."""
    save_id: str
    """Rank 0's counts."""
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
        # Each rank sees whether the directory is the one that it knows.
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
        """Writes the files that are no shards: this rank's state, and on rank 0 the common state.

        Makes all names of this rank's files durable, that of its shard in ``shards`` too. Those of
        rank 0 wait for :meth:`Commit.seal`, which syncs the same folders from the same machine.
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
            opened.retired = self._retire(None)  # or the disk would fill
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
    """As :func:`save`; until it ends, nothing of this process cleans up after it."""
    with to.runtime.process.under_way(to.save_id):
        return (yield from save(to, to.runtime, timeout_s=timeout_s))


def _differing(proposals: Sequence[Proposal]) -> frozenset[str]:
    """Keys of which a rank has another value than rank 0, or one where that has none."""
    first = proposals[0].digests
    return frozenset(
        key
        for proposal in proposals
        for key in proposal.digests
        if proposal.digests[key] != first.get(key)
    )


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
