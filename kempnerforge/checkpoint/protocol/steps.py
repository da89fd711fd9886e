"""The requests that a protocol makes while it runs.

A protocol is a generator. It yields requests and is resumed with their results; the error of a
request is raised where it was yielded. It has no thread, clock or connection of its own. A driver
carries out the requests: :mod:`runtime.driver` for a real rank, or a simulation of a thousand ranks
in one process, on a virtual clock.

Each request has its own deadline. Access to storage is a :class:`StorageCall`, because it may never
return; the code within it can ask the clock of its :class:`effects.Runtime` for the seconds left.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from kempnerforge.checkpoint.errors import RankFailure, Refusal, describe
from kempnerforge.checkpoint.protocol.rounds import V, Vote, Votes

__all__ = [
    "AnswerRanks",
    "CollectVotes",
    "FinishCall",
    "IsStuck",
    "RefusedError",
    "Request",
    "Round",
    "StartCall",
    "Started",
    "Steps",
    "StorageCall",
    "accepted",
    "call",
    "is_stuck",
]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectVotes:
    """Sends a vote; results in the :class:`Votes` of all ranks on rank 0, and in None elsewhere."""

    vote: Vote
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRanks:
    """Sends one reply per rank, on rank 0; results in this rank's reply."""

    replies: Sequence[object] | None
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCall:
    """Makes a call that may never return; results in its result."""

    make: Callable[[], Any]
    timeout_s: float
    """Seconds after which it is abandoned with a :class:`StorageTimeoutError`."""
    doing: str
    """Description of the call, for that error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCall:
    """Starts a call in the background; results in the handle for :class:`FinishCall`."""

    make: Callable[[], Any]
    timeout_s: float | None
    """Seconds that the call sees as left; None for no limit, whenever it is waited for."""


Started = object
"""The driver's handle of a call in progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishCall:
    """Waits for a started call; results as for :class:`StorageCall`."""

    started: Started
    timeout_s: float
    doing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IsStuck:
    """Asks whether an abandoned call is still in progress, so that no other can be made."""


Request = CollectVotes | AnswerRanks | StorageCall | StartCall | FinishCall | IsStuck
Steps = Generator[Request, Any, T]
"""A protocol that returns a ``T``."""


def call(make: Callable[[], T], *, timeout_s: float, doing: str) -> Steps[T]:
    """Yields a :class:`StorageCall`; types its result."""
    result: T = yield StorageCall(make=make, timeout_s=timeout_s, doing=doing)
    return result


def is_stuck() -> Steps[bool]:
    """Yields an :class:`IsStuck`; types its result."""
    found: bool = yield IsStuck()
    return found


class RefusedError(Exception):
    """Ends a round with a specific refusal by rank 0, in place of the error of a call."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Generic[V, R]):
    """One round of agreement, typed by its votes and replies.

    If a rank fails, all ranks get a :class:`Refusal`.
    """

    votes: type[V]
    doing: str
    """Description of the operation, for the error of a rank that is in another one."""
    refusal: Refusal
    """Rank 0's answer after a failure; the failures are filled in."""
    vote_s: float
    """Longest time in seconds that rank 0 waits for the votes."""
    answer_s: float
    """Longest time in seconds that the others wait for the answer, after their vote."""

    def hold(
        self, vote: V, decide: Callable[[tuple[V, ...]], Steps[Sequence[R]]]
    ) -> Steps[R | Refusal]:
        """Sends a vote and returns this rank's reply.

        Args:
            vote: This rank's vote.
            decide: Called on rank 0 with the votes of all ranks, none of which has failed; returns
                the reply to each rank.
        """
        votes: Votes[V] | None = yield CollectVotes(vote=vote, timeout_s=self.vote_s)
        replies = None if votes is None else (yield from self._replies(votes, decide))
        reply: R | Refusal = yield AnswerRanks(replies=replies, timeout_s=self.answer_s)
        return reply

    def _replies(
        self, votes: Votes[V], decide: Callable[[tuple[V, ...]], Steps[Sequence[R]]]
    ) -> Steps[Sequence[R | Refusal]]:
        failures = votes.failures(self.votes, self.doing)
        refusal = self._refuse(failures) if failures else None
        if refusal is None:
            try:
                return (yield from decide(votes.of(self.votes)))
            except RefusedError as error:
                refusal = error.refusal
            except Exception as error:  # noqa: BLE001  # becomes the error of every rank
                refusal = self._refuse((describe(error, 0),))
        return [refusal] * len(votes.values)

    def _refuse(self, failures: tuple[RankFailure, ...]) -> Refusal:
        return replace(self.refusal, failures=failures)


def accepted(reply: R | Refusal, *, cause: BaseException | None = None) -> R:
    """Returns a reply, unless it is a refusal.

    Raises:
        CheckpointError: The reply is a refusal; the same error on every rank.
    """
    if isinstance(reply, Refusal):
        raise reply.error() from cause
    return reply
