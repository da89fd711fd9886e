"""The protocol of a load: choose a checkpoint, check everything, and only then change state.

Everything that can be refused is refused before the first change: missing or damaged files, names
and shapes that do not fit, another freeze state, a dataloader position that no rank continues. Then
every rank restores its state, and all agree that they have done so.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from kempnerforge.checkpoint.errors import CheckpointLoadError, RankFailure, Refusal, describe
from kempnerforge.checkpoint.protocol.choosing import Chooser, Prepared, Search
from kempnerforge.checkpoint.protocol.effects import Runtime
from kempnerforge.checkpoint.protocol.proposal import Choice, LoadCandidate
from kempnerforge.checkpoint.protocol.reachable import failure_to_confirm
from kempnerforge.checkpoint.protocol.steps import (
    FinishCall,
    Round,
    StartCall,
    Started,
    Steps,
    accepted,
    call,
    is_stuck,
)

__all__ = ["Load", "Loader", "Restored"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The others wait for rank 0 twice as long as it waits for them, and work is limited to less than
# either, so that a slow rank reports its own timeout.
_WAIT_SHARE = 0.5
_WORK_SHARE = 0.8
# The other ranks continue meanwhile, and may already be waiting for rank 0 in a save.
_TIDY_SHARE = 0.1


class Loader(Protocol[T]):
    """Reads a checkpoint on one rank, and restores it; ``T`` is the result of reading."""

    def opening(self) -> object:
        """Returns this rank's opening message to the others."""

    def prepare(self, candidate: LoadCandidate) -> T:
        """Reads and checks everything, and changes nothing."""

    def restore(self, prepared: T) -> None:
        """Restores what was read, except the generators, because an agreement follows."""

    def not_taken(self, prepared: T) -> tuple[str, ...]:
        """Returns sorted names of values that this rank has no place for, up to the limit sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(Generic[T]):
    """The outcome of a load, once every rank has its state."""

    choice: Choice
    prepared: T
    not_taken: tuple[str, ...]
    """Names of values that no rank has a place for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _RestoreVote:
    """The vote of a rank that has restored its state, or failed to."""

    failure: RankFailure | None
    not_taken: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """Rank 0's answer once all ranks have restored their state."""

    not_taken: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Generic[T]):
    """One load."""

    search: Search
    runtime: Runtime
    """The runtime of this rank."""
    loader: Loader[T]
    tidy: Callable[[], None]
    """Called on rank 0 after all reading, while the ranks agree on success. Its errors are logged,
    because the load does not depend on it."""
    timeout_s: float

    def steps(self, earlier: BaseException | None = None) -> Steps[Restored[T] | None]:
        """Loads a checkpoint. Collective.

        Args:
            earlier: An earlier error on this rank; then no rank loads, and all raise it.

        Returns:
            The outcome, or None if nothing was ever saved.
        """
        chooser = Chooser(
            search=self.search, runtime=self.runtime, timeout_s=_WAIT_SHARE * self.timeout_s
        )
        earlier_failure = yield from self._failure_before(earlier)
        found: Prepared[T] | None = yield from chooser.prepare(
            self.loader.prepare, opening=self.loader.opening(), earlier=earlier_failure
        )
        if found is None:
            yield from self._finish_tidying((yield from self._start_tidying()))
            return None
        agreed = yield from self._together(found.result, found.choice)
        return Restored(choice=found.choice, prepared=found.result, not_taken=agreed.not_taken)

    def _failure_before(self, earlier: BaseException | None) -> Steps[RankFailure | None]:
        """Returns the failure that prevents this rank, and so all ranks, from loading."""
        if earlier is not None:
            return describe(earlier, self.runtime.rank)
        if not self.search.concerns_root:
            return None
        return (yield from failure_to_confirm(self.runtime, timeout_s=self.timeout_s))

    def _together(self, prepared: T, choice: Choice) -> Steps[_Agreed]:
        """Restores on every rank; if it fails on one, all raise that error."""
        wait_s = _WAIT_SHARE * self.timeout_s
        doing = f"restoring {choice.path}"
        cause: BaseException | None = None
        failure = None
        try:
            yield from call(
                lambda: self.loader.restore(prepared), timeout_s=_WORK_SHARE * wait_s, doing=doing
            )
        except GeneratorExit:
            raise  # the driver has stopped this protocol
        except BaseException as error:  # becomes the error of every rank
            if not isinstance(error, Exception) and (yield from is_stuck()):
                raise  # after Ctrl-C, do not wait for the others
            cause, failure = error, describe(error, self.runtime.rank)
        tidying = None if failure else (yield from self._start_tidying())
        agreement: Round[_RestoreVote, _Agreed] = Round(
            votes=_RestoreVote,
            doing=doing,
            refusal=Refusal(
                failures=(),
                doing=doing,
                default=CheckpointLoadError,
                step=choice.manifest.step if choice.manifest else None,
                path=str(choice.path),
            ),
            vote_s=wait_s,
            answer_s=2 * wait_s,
        )
        vote = _RestoreVote(failure=failure, not_taken=self.loader.not_taken(prepared))
        reply = yield from agreement.hold(vote, _agree)
        yield from self._finish_tidying(tidying)
        if cause is not None and not isinstance(cause, Exception):
            raise cause  # SystemExit, say; the others know by now
        return accepted(reply, cause=cause)

    def _start_tidying(self) -> Steps[Started | None]:
        if self.runtime.rank != 0:
            return None
        started: Started = yield StartCall(make=self.tidy, timeout_s=None)
        return started

    def _finish_tidying(self, tidying: Started | None) -> Steps[None]:
        root: Path = self.search.root
        try:
            if tidying is not None:
                yield FinishCall(
                    started=tidying,
                    timeout_s=_TIDY_SHARE * self.timeout_s,
                    doing=f"cleaning up in {root}",
                )
        except Exception as error:  # noqa: BLE001  # the ranks have agreed that all is well
            logger.warning("leftovers in %s are not removed: %s", root, error)


def _agree(votes: Sequence[_RestoreVote]) -> Steps[Sequence[_Agreed]]:
    yield from ()
    # A value without a place on one rank may belong to another: to its stage, to its experts.
    left = set.intersection(*(set(vote.not_taken) for vote in votes))
    return [_Agreed(not_taken=tuple(sorted(left)))] * len(votes)
