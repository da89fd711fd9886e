"""Runs the protocols of many ranks in one process, on a virtual clock.

Modelled: each rank has its own clock, advanced by operations of its storage and by waits for the
others. Rank 0 waits for votes, and the others for its answer, until their deadlines. A rank can be
killed before an operation, be stopped for good before a vote, and have storage that is slow, hangs
or fails. A call that outlives its deadline is abandoned and does nothing more.

A call is carried out without interruption, so operations of two ranks never interleave. Out of
scope: broken connections between two living ranks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from kempnerforge.checkpoint.errors import PeerLostError, RankFailure, StorageTimeoutError
from kempnerforge.checkpoint.protocol.effects import Runtime, Unlocked
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.protocol.rounds import Votes
from kempnerforge.checkpoint.protocol.steps import (
    AnswerRanks,
    CollectVotes,
    FinishCall,
    Request,
    StartCall,
    Steps,
    StorageCall,
)
from kempnerforge.checkpoint.protocol.storage import Storage
from tests.checkpoint.memory_storage import Death

T = TypeVar("T")

EPOCH_S = 1.8e9


class JumpingClock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self._deadline = math.inf

    def time(self) -> float:
        return EPOCH_S + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def seconds_left(self) -> float:
        return self._deadline - self.now

    def wait_until(self, then: float) -> None:
        self.now = max(self.now, then)

    @contextmanager
    def impatient(self) -> Generator[None, None, None]:
        with self.until(-math.inf):
            yield

    @contextmanager
    def until(self, deadline: float) -> Generator[None, None, None]:
        before, self._deadline = self._deadline, deadline
        try:
            yield
        finally:
            self._deadline = before


class GivenUpError(BaseException):
    """Ends a call that has no time left; nobody waits for it any more."""


class SlowStorage:
    """The storage of one rank; every operation takes time.

    Attributes:
        operation_s: What an operation takes, by its name and the path it begins with.
        before: Called before each; may raise :class:`Death` or an error.
    """

    def __init__(self, storage: Storage, clock: JumpingClock) -> None:
        self._storage, self._clock = storage, clock
        self.operation_s: Callable[[str, Path], float] = lambda name, path: 0.001
        self.before: Callable[[str, Path], None] = lambda name, path: None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)

        def operation(path: Path, *args: Any) -> Any:
            self.before(name, path)
            self._clock.sleep(self.operation_s(name, path))
            if self._clock.seconds_left() < 0 and self._clock.seconds_left() != -math.inf:
                raise GivenUpError
            return found(path, *args)

        return operation


class Rank(Generic[T]):
    """One simulated rank, from job to job.

    Attributes:
        stops_at: The vote before which it hangs for good, counted from 1; 0 for never.
    """

    def __init__(self, rank: int, world_size: int, storage: Storage) -> None:
        numbers = itertools.count(1)
        self.rank = rank
        self.clock = JumpingClock()
        self.storage = SlowStorage(storage, self.clock)
        self.process = ProcessMemory(lambda: f"{rank:08x}{next(numbers):08x}")
        self.runtime = Runtime(
            storage=cast("Storage", self.storage),
            clock=self.clock,
            process=self.process,
            rank=rank,
            world_size=world_size,
            access=Unlocked(),
        )
        self.stops_at = 0
        self.is_dead = False


@dataclass
class Outcome(Generic[T]):
    """What a protocol came to on one rank."""

    result: T | None = None
    error: BaseException | None = None
    ended_s: float = 0.0
    """On this rank's clock."""


@dataclass
class _Running(Generic[T]):
    """A protocol that is being carried out on one rank."""

    rank: Rank[T]
    steps: Steps[T]
    votes: list[tuple[float, object]] = field(default_factory=list)
    """With the time at which each was handed in."""
    asked: AnswerRanks | CollectVotes | None = None
    """What it waits for."""
    is_stuck: bool = False
    outcome: Outcome[T] = field(default_factory=Outcome)
    has_ended: bool = False

    def go_on(self, value: object = None, error: BaseException | None = None) -> None:
        """To the next request for which others are needed, or to the end."""
        self.asked = None
        while not self.has_ended:
            try:
                request = self.steps.send(value) if error is None else self.steps.throw(error)
            except StopIteration as end:
                return self._end(result=end.value)
            except Death as death:
                self.rank.is_dead = True
                return self._end(error=death)
            except Exception as raised:  # noqa: BLE001  # what this rank raises is the outcome
                return self._end(error=raised)
            value = error = None
            if isinstance(request, AnswerRanks):
                self.asked = request
                return None
            if isinstance(request, CollectVotes):
                if len(self.votes) + 1 == self.rank.stops_at:
                    self.steps.close()
                    return self._end()
                self.votes.append((self.rank.clock.now, request.vote))
                if self.rank.rank == 0:
                    self.asked = request
                    return None
                continue
            try:
                value = self._perform(request)
            except (Exception, Death) as raised:  # noqa: BLE001  # raised where it was asked for
                error = raised
        return None

    def _end(self, result: T | None = None, error: BaseException | None = None) -> None:
        self.outcome = Outcome(result=result, error=error, ended_s=self.rank.clock.now)
        self.has_ended = True

    def _perform(self, request: Request) -> Any:
        if isinstance(request, StorageCall):
            return self._call(request.make, request.timeout_s, request.doing)
        if isinstance(request, StartCall):
            return self._start(request.make, request.timeout_s or math.inf)
        if isinstance(request, FinishCall):
            assert isinstance(request.started, _Made)
            return self._finish(request.started, request.timeout_s, request.doing)
        return self.is_stuck

    def _call(self, make: Callable[[], Any], timeout_s: float, doing: str) -> Any:
        clock = self.rank.clock
        deadline = clock.now + timeout_s
        try:
            if self.is_stuck:
                raise GivenUpError
            with clock.until(deadline):
                return make()
        except GivenUpError:
            self.is_stuck = True
            clock.now = deadline
            raise StorageTimeoutError(f"{doing} did not finish within {timeout_s:.1f} s") from None

    def _start(self, make: Callable[[], Any], timeout_s: float) -> _Made:
        """Make a call beside what the rank does meanwhile, whose time does not pass for it."""
        clock = self.rank.clock
        began = clock.now
        made = _Made.of(lambda: self._call(make, timeout_s, ""))
        made.ended_s, clock.now = clock.now, began
        return made

    def _finish(self, made: _Made, timeout_s: float, doing: str) -> Any:
        clock = self.rank.clock
        deadline = clock.now + timeout_s
        if made.ended_s > deadline:
            self.is_stuck = True
            clock.wait_until(deadline)
            raise StorageTimeoutError(f"{doing} did not finish within {timeout_s:.1f} s")
        clock.wait_until(made.ended_s)
        return made.get(doing)


@dataclass
class _Made:
    """A call that was started, and when it was over."""

    value: Any = None
    error: BaseException | None = None
    ended_s: float = 0.0

    @staticmethod
    def of(call: Callable[[], Any]) -> _Made:
        try:
            return _Made(value=call())
        except Exception as error:  # noqa: BLE001  # raised where it is waited for
            return _Made(error=error)

    def get(self, doing: str) -> Any:
        if isinstance(self.error, StorageTimeoutError):
            raise StorageTimeoutError(f"{doing}{self.error}")
        if self.error is not None:
            raise self.error
        return self.value


def carry_out(steps: Steps[T], clock: JumpingClock | None = None) -> T:
    """The result of a protocol of a single rank."""
    alone: Rank[T] = Rank(0, 1, cast("Storage", None))
    if clock is not None:
        alone.clock = clock
    (outcome,) = carry_out_together([alone], [steps])
    if outcome.error is not None:
        raise outcome.error
    return cast("T", outcome.result)


def carry_out_together(ranks: Sequence[Rank[T]], protocols: Sequence[Steps[T]]) -> list[Outcome[T]]:
    """What the protocols of all ranks come to; rank 0 first."""
    root, *peers = [_Running(rank, steps) for rank, steps in zip(ranks, protocols, strict=True)]
    for one in (root, *peers):
        if one.rank.is_dead:
            one.has_ended = True
        else:
            one.go_on()
    while not all(one.has_ended for one in (root, *peers)):
        if isinstance(root.asked, CollectVotes):
            root.go_on(_collected(root, root.asked, peers))
        elif isinstance(root.asked, AnswerRanks):
            _answer(root, root.asked, peers)
        else:
            for peer in peers:
                _lose_root(peer, root)
    return [one.outcome for one in (root, *peers)]


def _collected(
    root: _Running[Any], request: CollectVotes, peers: Sequence[_Running[Any]]
) -> Votes[Any]:
    number, clock = len(root.votes) - 1, root.rank.clock
    deadline = clock.now + request.timeout_s
    values: list[object] = [request.vote]
    lost, ready = [], clock.now
    for peer in peers:
        sent_s, vote = peer.votes[number] if number < len(peer.votes) else (math.inf, None)
        if peer.rank.is_dead and sent_s == math.inf:
            sent_s = peer.rank.clock.now  # its connection closes
        else:
            ready = max(ready, min(sent_s, deadline))
        if vote is None or sent_s > deadline:
            vote = None
            message = "died, hung or lost its connection before it voted"
            lost.append(RankFailure(rank=peer.rank.rank, kind="PeerLostError", message=message))
        values.append(vote)
    clock.wait_until(ready)
    return Votes(values=tuple(values), lost=tuple(lost))


def _answer(root: _Running[Any], request: AnswerRanks, peers: Sequence[_Running[Any]]) -> None:
    assert request.replies is not None
    number, now = len(root.votes), root.rank.clock.now
    for peer, reply in zip(peers, request.replies[1:], strict=True):
        waits = not peer.has_ended and isinstance(peer.asked, AnswerRanks)
        if not waits or len(peer.votes) != number:
            continue
        assert isinstance(peer.asked, AnswerRanks)
        deadline = peer.rank.clock.now + peer.asked.timeout_s
        if now > deadline:
            peer.rank.clock.wait_until(deadline)
            peer.go_on(error=PeerLostError("rank 0 is lost or hung: no answer"))
        else:
            peer.rank.clock.wait_until(now)
            peer.go_on(reply)
    root.go_on(request.replies[0])


def _lose_root(peer: _Running[Any], root: _Running[Any]) -> None:
    """Rank 0 gives no answer any more."""
    if peer.has_ended:
        return
    assert isinstance(peer.asked, AnswerRanks)
    if not root.rank.is_dead:
        peer.rank.clock.sleep(peer.asked.timeout_s)
    peer.go_on(error=PeerLostError("rank 0 is lost"))
