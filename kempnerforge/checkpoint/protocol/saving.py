"""The protocol of a save on every rank, from staged state to durable files.

There are two rounds of agreement::

    propose   every rank: its plan, its step            rank 0: merged plans, a place to write to
    write     every rank writes its shards and its own files, fsynced
    report    every rank: files and checksums           rank 0: completes the save, and cleans up

A rank that fails reports that in the next round, so all ranks raise the same error. The deadline
counts from the first round; the fractions below ensure that each wait ends before it. Everything
that touches storage is a :class:`steps.StorageCall`, so a rank whose storage hangs still reports.

The :class:`Destination` of a save is a checkpoint (:mod:`checkpoint_save`), which is staged, sealed
and published (:mod:`commit`), or a bare directory (:mod:`bulk.directory_save`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from kempnerforge.checkpoint.errors import (
    CheckpointError,
    CheckpointSaveError,
    RankFailure,
    Refusal,
    StorageTimeoutError,
    describe,
    naming,
)
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.rounds import V
from kempnerforge.checkpoint.protocol.save_messages import (
    Assignment,
    Proposal,
    Published,
    Report,
)
from kempnerforge.checkpoint.protocol.steps import (
    RefusedError,
    Round,
    Steps,
    accepted,
    call,
    is_stuck,
)

__all__ = ["Destination", "Words", "save"]

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened")

# Fractions of the deadline. Rank 0 waits for votes longer than a rank may write, and the others
# wait for its answer longer than it may wait for votes and publish. So a late rank is named by the
# rank that waited for it, instead of all ranks blaming rank 0. Writing and its answer fit in the
# whole deadline.
_WRITE_SHARE = 0.3
_VOTE_SHARE = 0.35
_PUBLISH_SHARE = 0.2
_ANSWER_SHARE = 0.65


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Descriptions of the stages of a save, for errors."""

    saving: str
    opening: str
    writing: str
    completing: str
    doubt: str
    """The state after a completion that was given up on."""


class Destination(Protocol[Opened]):
    """The destination of a save; ``Opened`` is rank 0's state between the rounds."""

    @property
    def path(self) -> Path:
        """The directory, for errors."""

    @property
    def words(self) -> Words:
        """Descriptions of the stages, for errors."""

    @property
    def step(self) -> int | None:
        """The step, for errors."""

    def propose(self, *, timeout_s: float) -> Steps[Proposal]:
        """Returns this rank's vote in the first round."""

    def open(self, proposals: Sequence[Proposal]) -> tuple[Opened, list[Assignment]]:
        """Creates a place to write to, and assigns the data to ranks; called on rank 0."""

    def write(self, assignment: Assignment) -> Report:
        """Writes this rank's part."""

    def complete(
        self, opened: Opened, reports: Sequence[Report]
    ) -> tuple[Published, tuple[Path, ...]]:
        """Commits what was written; called on rank 0.

        Returns:
            The result, and directories to remove once the ranks have their answer.
        """

    def withdraw(self, opened: Opened) -> tuple[Path, ...]:
        """Returns the directories to remove after a failed save; called on rank 0."""

    def remove(self, paths: tuple[Path, ...], *, failed: bool) -> None:
        """Removes directories after the save succeeded or failed; called on rank 0."""


def save(to: Destination[Opened], runtime: Runtime, *, timeout_s: float) -> Steps[Published]:
    """Saves. Collective.

    Args:
        to: The destination, with what this rank contributes.
        runtime: The runtime of this rank.
        timeout_s: The deadline of the whole save.

    Raises:
        CheckpointSaveError: The save failed. Like other errors of this package, it is raised on
            every living rank.
    """
    with naming(to.words.saving, step=to.step, path=str(to.path)):
        return (yield from _Save(to, runtime, timeout_s).steps())


class _Save(Generic[Opened]):
    """Runs the two rounds."""

    def __init__(self, to: Destination[Opened], runtime: Runtime, timeout_s: float) -> None:
        self._to, self._runtime, self._timeout_s = to, runtime, timeout_s
        self._refusal = Refusal(
            failures=(),
            doing=to.words.saving,
            default=CheckpointSaveError,
            step=to.step,
            path=str(to.path),
        )
        self._opened: Opened | None = None
        self._published: tuple[Published, tuple[Path, ...]] | None = None

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
        self._opened = opened
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
        opened = self._opened
        assert opened is not None
        try:
            done = yield from call(
                lambda: self._to.complete(opened, reports),
                timeout_s=_PUBLISH_SHARE * self._timeout_s,
                doing=self._to.words.completing,
            )
        except Exception as error:
            raise self._refused(self._in_doubt(error)) from error
        self._published = done
        return [done[0]] * len(reports)

    def _in_doubt(self, error: Exception) -> Exception:
        """Returns the error of a completion; the effect of an abandoned one is unknown."""
        if not isinstance(error, StorageTimeoutError):
            return error
        return StorageTimeoutError(f"{error}; {self._to.words.doubt}")

    def _clean_up(self) -> Steps[None]:
        """Removes what is not needed any more; a failure is left to the next save."""
        if self._opened is None:
            return
        done = self._published
        paths = self._to.withdraw(self._opened) if done is None else done[1]
        if not paths or (yield from is_stuck()):
            return
        try:
            yield from call(
                partial(self._to.remove, paths, failed=done is None),
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
