"""A round of agreement: everyone votes to rank 0, rank 0 answers everyone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from kempnerforge.checkpoint.errors import CheckpointError, RankFailure

__all__ = ["LocalCollective", "Rounds", "Vote", "Votes"]


class Vote(Protocol):
    """A rank's message to rank 0."""

    @property
    def failure(self) -> RankFailure | None:
        """Why this rank cannot go on, which is then the error of all."""


V = TypeVar("V", bound=Vote)


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes(Generic[V]):
    """The votes that rank 0 collected in one round."""

    values: tuple[V | Any, ...]
    """By rank; None for a lost rank, and a vote of another round where a rank is elsewhere."""
    lost: tuple[RankFailure, ...]

    def failures(self, kind: type[V], doing: str) -> tuple[RankFailure, ...]:
        """Of the ranks that are lost, that say so, or that are not at what rank 0 is doing.

        Args:
            kind: Of the votes of this round.
            doing: What rank 0 does.
        """
        elsewhere = (
            RankFailure(
                rank=rank,
                kind=CheckpointError.__name__,
                message=f"it does something else than rank 0, which is {doing}",
            )
            for rank, vote in enumerate(self.values)
            if vote is not None and not isinstance(vote, kind)
        )
        own = (vote.failure for vote in self.values if isinstance(vote, kind) and vote.failure)
        return (*self.lost, *elsewhere, *own)

    def of(self, kind: type[V]) -> tuple[V, ...]:
        """By rank, where :meth:`failures` has found none."""
        return tuple(vote for vote in self.values if isinstance(vote, kind))


class Rounds(Protocol):
    """Rounds of agreement; one thread at a time, all ranks in the same order."""

    rank: int
    world_size: int

    def collect(self, value: object, *, timeout_s: float) -> Votes[Any] | None:
        """Vote. On rank 0 the votes of all ranks, elsewhere None."""

    def answer(self, replies: Sequence[object] | None, *, timeout_s: float) -> Any:
        """On rank 0 hand out ``replies``, one a rank; everywhere, this rank's reply.

        Raises:
            PeerLostError: Rank 0 did not answer.
        """


class LocalCollective:
    """A job of one process, with or without torch.distributed."""

    rank = 0
    world_size = 1

    def renew(self, worker: object = None) -> None:
        """Nothing can have gone wrong between a rank and itself."""
        del worker

    def collect(self, value: object, *, timeout_s: float) -> Votes[Any] | None:
        del timeout_s
        return Votes(values=(value,), lost=())

    def answer(self, replies: Sequence[object] | None, *, timeout_s: float) -> Any:
        del timeout_s
        assert replies is not None
        return replies[0]
