"""The requests that a protocol makes while it runs.

A protocol is a generator. It yields requests and is resumed with what came of them; an error of a
request is raised where it was yielded. It has no thread, clock or connection of its own: somebody
carries it out (:mod:`runtime.driver` for a real rank), and can as well carry out those of a
thousand ranks in one process, on a clock that jumps.

A deadline belongs to the request. What touches storage is asked for as a :class:`StorageCall`,
since it may never return; the code within it may ask the clock of its :class:`effects.Runtime` how
many seconds are left.
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
    """Vote; gives rank 0 the :class:`Votes` of all ranks, and the others None."""

    vote: Vote
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRanks:
    """Hand out one reply a rank, on rank 0; gives this rank's reply."""

    replies: Sequence[object] | None
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCall:
    """Make a call that may never return; gives its result."""

    make: Callable[[], Any]
    timeout_s: float
    """After which it is given up on, with a :class:`StorageTimeoutError`."""
    doing: str
    """In words, for that error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCall:
    """Have a call made while something else is done; gives what :class:`FinishCall` takes."""

    make: Callable[[], Any]
    timeout_s: float | None
    """The time that the call can ask for; None for as long as it is waited for."""


Started = object
"""A call under way, as whoever carries it out knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishCall:
    """Wait for a call that was started; as :class:`StorageCall`."""

    started: Started
    timeout_s: float
    doing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IsStuck:
    """Whether a call that was given up on is still under way, so that no other can be made."""


Request = CollectVotes | AnswerRanks | StorageCall | StartCall | FinishCall | IsStuck
Steps = Generator[Request, Any, T]
"""A protocol that returns a ``T``."""


def call(make: Callable[[], T], *, timeout_s: float, doing: str) -> Steps[T]:
    """As :class:`StorageCall`, with the type of its result."""
    result: T = yield StorageCall(make=make, timeout_s=timeout_s, doing=doing)
    return result


def is_stuck() -> Steps[bool]:
    """As :class:`IsStuck`."""
    found: bool = yield IsStuck()
    return found


class RefusedError(Exception):
    """Ends a round with an answer of rank 0 that says more than the error of a call."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Generic[V, R]):
    """One round of agreement, by the types of what it carries.

    Whatever one rank fails at becomes a :class:`Refusal`, which all ranks get.
    """

    votes: type[V]
    doing: str
    """In words, for a rank that is at something else."""
    refusal: Refusal
    """Rank 0's answer after a failure, without that."""
    vote_s: float
    """Longest wait of rank 0 for the votes."""
    answer_s: float
    """Longest wait of the others for the answer, from their vote on."""

    def hold(
        self, vote: V, decide: Callable[[tuple[V, ...]], Steps[Sequence[R]]]
    ) -> Steps[R | Refusal]:
        """Vote, and learn this rank's reply.

        Args:
            vote: This rank's.
            decide: Called on rank 0 with the votes of all ranks, none of which has failed; says
                what each rank is answered.
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
    """A reply that is no refusal.

    Raises:
        CheckpointError: It is one; the same on every rank.
    """
    if isinstance(reply, Refusal):
        raise reply.error() from cause
    return reply
