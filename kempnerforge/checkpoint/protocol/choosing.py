"""Chooses the checkpoint to load: rank 0 decides, all ranks verify, and all get the same answer.

Rank 0 lists candidates and offers one at a time. Each rank prepares to load it, which includes
verifying its partition of the files. The first candidate that every rank finds whole is chosen. A
damaged candidate is passed over. Any other problem, such as a model that does not fit or storage
that cannot be read, is an error on all ranks. An explicit path is the only candidate: if it is
damaged, that is an error too.

The first candidate is the target of ``latest``; if it is whole, nothing else is read. The others
come in the order of their commits, for which all manifests are read. One that cannot be read, or
has a newer format, ends the walk at the place that it may have in that order.

In an unchanged layout of ranks, a rank's verification partition consists of the files that it reads
anyway, so nothing is read twice.
"""

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from kempnerforge.checkpoint.errors import (
    CheckpointError,
    CheckpointLoadError,
    CorruptCheckpointError,
    NoUsableCheckpointError,
    RankFailure,
    Refusal,
    StorageTimeoutError,
    describe,
    of_read,
    shows_damage,
)
from kempnerforge.checkpoint.protocol import prune
from kempnerforge.checkpoint.protocol.announced import look_for_newest
from kempnerforge.checkpoint.protocol.candidates import (
    ForeignShards,
    candidates,
    find_explicit,
    verify_entry,
)
from kempnerforge.checkpoint.protocol.catalog import Entry, Outline, inspect
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.proposal import Choice, LoadCandidate, LoadProposal
from kempnerforge.checkpoint.protocol.reachable import require_reachable
from kempnerforge.checkpoint.protocol.replacing import read_settled
from kempnerforge.checkpoint.protocol.rounds import Votes
from kempnerforge.checkpoint.protocol.steps import (
    AnswerRanks,
    CollectVotes,
    FinishCall,
    RefusedError,
    StartCall,
    Started,
    Steps,
    call,
)
from kempnerforge.checkpoint.protocol.verification import VerifyPolicy, verify_files
from kempnerforge.checkpoint.protocol.visibility import await_listed, once_visible, when_visible

__all__ = [
    "Chooser",
    "Prepared",
    "Search",
    "cheap_choice",
    "choose",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Work is limited to less than the other ranks' wait, so that a slow rank reports its own timeout.
_WORK_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Where to look for a checkpoint.

    If an explicit path is given, the root has no effect.
    """

    root: Path
    explicit: Path | None = None
    verify: VerifyPolicy = VerifyPolicy.full
    shards: ForeignShards
    """Checks shards that have no manifest."""

    @property
    def concerns_root(self) -> bool:
        """Whether the search is in the checkpoint directory of this run."""
        return self.explicit is None or self.root in (self.explicit, *self.explicit.parents)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """Rank 0's answer that all ranks load the last offer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Generic[T]):
    """The choice, and the result of this rank's preparation for it."""

    choice: Choice
    result: T


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vote:
    opening: Any = None
    failure: RankFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _CandidateOutcome:
    """The outcome of one candidate on this rank."""

    vote: _Vote
    choice: Choice | None = None
    result: Any = None
    cause: Exception | None = None


def choose(search: Search, runtime: Runtime, *, timeout_s: float) -> Steps[Choice | None]:
    """Finds the checkpoint to load. Collective; the same result or error on every rank.

    Returns:
        The choice, or None if nothing was ever saved.

    Raises:
        CheckpointError: See :meth:`Chooser.prepare`.
    """

    def verify(candidate: LoadCandidate) -> None:
        choice = candidate.choice
        if choice.manifest is not None:
            verify_files(choice.path, choice.manifest, candidate.partition.items(), runtime)

    chooser = Chooser(search=search, runtime=runtime, timeout_s=timeout_s)
    found = yield from chooser.prepare(verify)
    return None if found is None else found.choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """Agrees with all ranks on the checkpoint to load, newest usable first."""

    search: Search
    runtime: Runtime
    """The runtime of this rank; its rounds connect all ranks that load."""
    timeout_s: float
    """Longest time that rank 0 waits for the others; they wait twice as long for it."""

    def prepare(
        self,
        prepare: Callable[[LoadCandidate], T],
        *,
        opening: object = None,
        earlier: RankFailure | None = None,
    ) -> Steps[Prepared[T] | None]:
        """Finds the checkpoint to load and prepares for it. Collective.

        Args:
            prepare: Verifies the partition of this rank, and does everything else that must not
                fail once the choice is made. Called for each candidate in turn.
            opening: This rank's opening message to the others.
            earlier: Why this rank cannot take part; becomes the error of all ranks.

        Returns:
            The choice, or None if nothing was ever saved; the same on every rank.

        Raises:
            CheckpointNotFoundError: The explicit path does not exist.
            NoUsableCheckpointError: There are checkpoints, but none verifies.
            UnreadableCheckpointError: A checkpoint that may be the newest cannot be read at
                present.
            NewerFormatError: It was written by a newer version of this package.
            CheckpointError: The explicit path is damaged, a rank is lost, or ``prepare`` raised an
                error on some rank.
        """
        root = _Root(self.search, self.runtime) if self.runtime.rank == 0 else None
        attempt = _CandidateOutcome(vote=_Vote(opening=opening, failure=earlier))
        while True:
            reply = yield from self._round(attempt.vote, root)
            if isinstance(reply, Refusal):
                raise reply.error() from attempt.cause
            if reply is None:
                return None
            if isinstance(reply, _Chosen):
                assert attempt.choice is not None
                return Prepared(choice=attempt.choice, result=attempt.result)
            del attempt  # frees its memory before the next attempt
            attempt = yield from self._try(prepare, reply)

    def _round(
        self, vote: _Vote, root: "_Root | None"
    ) -> Steps[LoadProposal | _Chosen | Refusal | None]:
        looking = None
        if root is not None and not root.has_begun:
            # Overlaps with the others' votes.
            looking = yield from self._start_looking(root)
        votes: Votes[_Vote] | None = yield CollectVotes(vote=vote, timeout_s=self.timeout_s)
        replies = None
        if votes is not None and root is not None:
            replies = yield from self._decide(root, votes, looking)
        reply: LoadProposal | _Chosen | Refusal | None = yield AnswerRanks(
            replies=replies, timeout_s=2 * self.timeout_s
        )
        return reply

    def _start_looking(self, root: "_Root") -> Steps[Started]:
        started: Started = yield StartCall(
            make=root.advance, timeout_s=_WORK_SHARE * self.timeout_s
        )
        return started

    def _try(
        self, prepare: Callable[[LoadCandidate], object], offer: LoadProposal
    ) -> Steps[_CandidateOutcome]:
        rank, world_size = self.runtime.rank, self.runtime.world_size
        try:
            candidate = offer.open(rank=rank, world_size=world_size)
            with self.runtime.process.building():
                result = yield from call(
                    lambda: when_visible(prepare, candidate, self.runtime),
                    timeout_s=_WORK_SHARE * self.timeout_s,
                    doing=f"reading {offer.path}",
                )
        except Exception as error:  # noqa: BLE001  # becomes the error of every rank
            return _CandidateOutcome(
                vote=_Vote(failure=_describe(error, rank, offer.path)), cause=error
            )
        return _CandidateOutcome(vote=_Vote(), choice=candidate.choice, result=result)

    def _decide(
        self, root: "_Root", votes: Votes[_Vote], looking: Started | None
    ) -> Steps[Sequence[object]]:
        """Returns one reply per rank: an offer to try, the final choice, None, or a refusal."""
        reply: object
        try:
            reply = yield from self._next(root, votes, looking)
        except RefusedError as error:
            reply = error.refusal
        except Exception as error:  # noqa: BLE001  # becomes the error of every rank
            place = self.search.explicit or self.search.root
            failure = describe(error, 0) if shows_damage(error) else _describe(error, 0, place)
            reply = self._refusal((failure,))
        return [reply] * len(votes.values)

    def _refusal(self, failures: tuple[RankFailure, ...]) -> Refusal:
        place = str(self.search.explicit or self.search.root)
        return Refusal(
            failures=failures,
            doing=f"choosing a checkpoint in {place}",
            default=CheckpointLoadError,
            path=place,
        )

    def _next(
        self, root: "_Root", votes: Votes[_Vote], looking: Started | None
    ) -> Steps[LoadProposal | _Chosen | Refusal | None]:
        failures = votes.failures(_Vote, f"loading from {self.search.root}")
        first, all_voted = (
            looking is not None,
            all(isinstance(vote, _Vote) for vote in votes.values),
        )
        if failures and (first or not all_voted):
            return self._refusal(failures)
        if not failures and not first:
            return _Chosen()
        if failures:
            root.judge(failures)
        if looking is None:
            looking = yield from self._start_looking(root)
        yield FinishCall(
            started=looking,
            timeout_s=_WORK_SHARE * self.timeout_s,
            doing=f"looking for checkpoints in {self.search.root}",
        )
        return root.offer(votes.values)


class _Root:
    """Rank 0's walk through the candidates."""

    def __init__(self, search: Search, runtime: Runtime) -> None:
        self.search = search
        self._runtime = runtime
        self._passed_over: list[str] = []
        self._damaged: set[str] = set()
        self._candidates: Iterator[Entry] | None = None
        self._current: Choice | None = None
        self._offer: LoadProposal | None = None
        self._openings: tuple[Any, ...] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether :meth:`advance` was called."""
        return self._candidates is not None

    def judge(self, failures: tuple[RankFailure, ...]) -> None:
        """Passes over the current candidate, or raises if no other could help; no storage access.

        Args:
            failures: The problems that the ranks found with it.
        """
        assert self._current is not None
        kinds = {failure.kind for failure in failures}
        # Storage that does not respond says nothing about this checkpoint, or about any other.
        answered = StorageTimeoutError.__name__ not in kinds
        damaged = answered and CorruptCheckpointError.__name__ in kinds
        reason = "; ".join(map(str, failures))
        self._pass_over(self._current, reason, failures, damaged=damaged)

    def advance(self) -> None:
        """Moves to the next candidate that looks whole."""
        if self._candidates is None:
            # A reference cycle would keep the lock until a garbage collection.
            self._candidates = _Root._walk(weakref.proxy(self))
        self._current = self._offer = None
        for entry in self._candidates:
            try:
                self._current = self._examine(entry)
            except (CheckpointError, OSError, MemoryError) as error:
                failure = _describe(error, 0, entry.path)
                damaged = shows_damage(error)
                self._pass_over(entry, failure.message, (failure,), damaged=damaged)
                continue
            self._offer = LoadProposal.of(self._current, verify=self.search.verify)
            return
        self._require_clean_start()

    def offer(self, votes: Sequence[_Vote | None]) -> LoadProposal | None:
        """Returns the current candidate as an offer to all ranks; None if there is none."""
        if self._openings is None:
            self._openings = tuple(vote.opening if vote else None for vote in votes)
        return None if self._offer is None else replace(self._offer, openings=self._openings)

    def _pass_over(
        self,
        found: Choice | Entry,
        reason: str,
        failures: tuple[RankFailure, ...],
        *,
        damaged: bool,
    ) -> None:
        """Moves to the next candidate, or raises if no other could help."""
        path, manifest = found.path, found.manifest
        if self.search.explicit is not None or not damaged:
            raise RefusedError(
                Refusal(
                    failures=failures,
                    doing=f"loading {path}",
                    path=str(path),
                    step=manifest.step if manifest is not None else None,
                    default=CorruptCheckpointError if damaged else CheckpointLoadError,
                )
            )
        logger.warning("checkpoint %s is passed over: %s", path, reason)
        self._passed_over.append(f"{path.name}: {reason}")
        if manifest is not None:
            self._damaged.add(manifest.save_id)

    def _walk(self) -> Iterator[Entry]:
        """Yields the candidates, including checkpoints that another job publishes meanwhile."""
        explicit = self.search.explicit
        if explicit is not None:
            if self.search.root in (explicit, explicit.parent):
                self._settled()
            await_listed(explicit, self._runtime)
            yield find_explicit(explicit, self._runtime.storage)
            return
        seen: set[object] = set()
        while True:
            fresh = False
            for entry in candidates(self._settled(), self._runtime.storage):
                if _identity(entry) not in seen:
                    seen.add(_identity(entry))
                    fresh = True
                    yield entry
            if not fresh:
                return

    def _settled(self) -> Outline:
        """Lists the directory, after completing what a dead run left half done."""
        root, runtime = self.search.root, self._runtime
        require_reachable(root, runtime.storage)
        found = look_for_newest(root, runtime)
        if not prune.may_need_recovery(found):
            return found
        with runtime.access.briefly() as mine:
            if mine and runtime.storage.may_change(root):
                self._recover(root)
        return read_settled(root, runtime)

    def _recover(self, root: Path) -> None:
        """Completes what was left half done. A failure is logged: hidden versions can be loaded."""
        try:
            prune.recover(root, self._runtime)
        except CheckpointError:
            raise
        except OSError as error:
            logger.warning("%s: cannot complete what a dead run left half done: %s", root, error)

    def _examine(self, entry: Entry) -> Choice:
        looks, storage = iter((entry,)), self._runtime.storage

        def verified() -> Entry:
            found = next(looks, None) or inspect(entry.path, storage)
            verify_entry(found, storage, verify=self.search.verify, shards=self.search.shards)
            return found

        # No content was compared, so any problem may only mean that a file is not visible yet.
        found = once_visible(verified, entry.path, self._runtime, late=shows_damage)
        return Choice(
            path=found.path,
            manifest=found.manifest,
            passed_over=tuple(self._passed_over),
            damaged=frozenset(self._damaged),
        )

    def _require_clean_start(self) -> None:
        """Accepts that there is nothing to load if nothing was ever saved; otherwise raises."""
        if self._passed_over:
            raise NoUsableCheckpointError(
                f"{self.search.root} holds checkpoints, but none can be used: "
                + "; ".join(self._passed_over)
            )


def _identity(entry: Entry) -> object:
    """Returns a value that distinguishes a version of a checkpoint from others of its name."""
    save_id = None if entry.manifest is None else entry.manifest.save_id
    return entry.path, entry.state, save_id


def _describe(error: BaseException, rank: int, path: Path) -> RankFailure:
    """As :func:`describe`, but converts a failed read to this package's error first."""
    if isinstance(error, OSError | MemoryError) and not isinstance(error, CheckpointError):
        error = of_read(error, getattr(error, "filename", None) or path, path=path)
    return describe(error, rank)


def cheap_choice(search: Search, runtime: Runtime) -> Path | None:
    """Returns what :func:`choose` would choose if no file's content is damaged. Not collective.

    Raises:
        CheckpointNotFoundError: The explicit path does not exist.
        UnreadableCheckpointError: A checkpoint that may be the newest cannot be read at present.
        NewerFormatError: It was written by a newer version of this package.
    """
    place = search.explicit or search.root
    try:
        return _first_usable(search, runtime)
    except (OSError, MemoryError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise of_read(error, getattr(error, "filename", None) or place, path=place) from error


def _first_usable(search: Search, runtime: Runtime) -> Path | None:
    storage = runtime.storage
    if search.explicit is not None:
        entries: Iterator[Entry] = iter((find_explicit(search.explicit, storage),))
    else:
        require_reachable(search.root, storage)
        entries = candidates(look_for_newest(search.root, runtime), storage)
    for entry in entries:
        try:
            verify_entry(entry, storage, shards=search.shards)
        except (CheckpointError, OSError) as error:
            if not shows_damage(error):
                raise
            logger.debug("%s is not usable: %s", entry.path, error)
            continue
        return entry.path
    return None
