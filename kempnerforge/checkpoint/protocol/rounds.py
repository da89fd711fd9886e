"""The interface of a round of agreement: all ranks vote to rank 0, and rank 0 answers each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from kempnerforge.checkpoint.errors import CheckpointError, RankFailure

__all__ = ["LocalCollective", "Rounds", "Vote", "Votes"]


class Vote(Protocol):
    """A rank's message to rank 0."""

    @property
    def failure(self) -> RankFailure | None:
        """Why this rank cannot continue; becomes the error of all ranks."""


V = TypeVar("V", bound=Vote)


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes(Generic[V]):
    """The votes that rank 0 collected in one round."""

    values: tuple[V | Any, ...]
    """By rank; None for a lost rank. A rank that is in another operation has sent another vote."""
    lost: tuple[RankFailure, ...]

    def failures(self, kind: type[V], doing: str) -> tuple[RankFailure, ...]:
        """Returns failures of ranks that are lost, report one, or are in another operation.

        Args:
            kind: Class of the votes of this round.
            doing: Describes the operation that rank 0 is in.
        """
        elsewhere = (
            RankFailure(
                rank=rank,
                kind=CheckpointError.__name__,
                message=f"it is in another operation than rank 0, which is {doing}",
            )
            for rank, vote in enumerate(self.values)
            if vote is not None and not isinstance(vote, kind)
        )
        own = (vote.failure for vote in self.values if isinstance(vote, kind) and vote.failure)
        return (*self.lost, *elsewhere, *own)

    def of(self, kind: type[V]) -> tuple[V, ...]:
        """Returns the votes by rank, after :meth:`failures` has found none."""
        return tuple(vote for vote in self.values if isinstance(vote, kind))


class Rounds(Protocol):
    """Rounds of agreement; for one thread at a time, in the same order on all ranks."""

    rank: int
    world_size: int

    def collect(self, value: object, *, timeout_s: float) -> Votes[Any] | None:
        """Sends this rank's vote. Returns the votes of all ranks on rank 0, and None elsewhere."""

    def answer(self, replies: Sequence[object] | None, *, timeout_s: float) -> Any:
        """Sends ``replies``, one per rank, on rank 0; returns this rank's reply.

        Raises:
            PeerLostError: Rank 0 did not answer.
        """


class LocalCollective:
    """A job of one process, with or without torch.distributed."""

    rank = 0
    world_size = 1

    def renew(self, worker: object = None) -> None:
        """Does nothing: a single rank has no connections that could fail."""
        del worker

    def collect(self, value: object, *, timeout_s: float) -> Votes[Any] | None:
        del timeout_s
        return Votes(values=(value,), lost=())

    def answer(self, replies: Sequence[object] | None, *, timeout_s: float) -> Any:
        del timeout_s
        assert replies is not None
        return replies[0]
