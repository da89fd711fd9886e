"""Agreement between the ranks in bounded time: all ranks vote to rank 0, which answers each.

One round is ``collect`` followed by ``answer``. For every rank, rank 0 gets either its vote or the
information that it is lost. Every living rank gets rank 0's answer, or learns that rank 0 is lost.
Votes and answers use two separate gloo groups: waiting for a vote that never comes makes gloo close
all connections of that group, and the answers must still get through. The groups are not registered
with torch.distributed: training's groups are never used, a failure to create one does not
desynchronise later groups of training, and destroying training's groups does not affect a save in
progress. Replies are pickled, which is safe between ranks of one job.

Every wait is bounded. A rank that died has closed its connections, so every wait for it fails at
once, now and in later rounds. A wait that timed out makes the groups unusable; all ranks then meet
for new ones at their next round (:mod:`meeting`). If a rank is known to be dead, or the job's store
died with the rank that served it, that raises at once instead.

Cost: two messages per rank and round, all at rank 0. This is linear in the number of ranks, and
acceptable because rank 0 needs every rank's list of files anyway.

Not covered: a rank that sends wrong messages, and a network that permanently reaches only some
ranks.
"""

import hashlib
import logging
import pickle
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist

from kempnerforge.checkpoint.errors import (
    PeerLostError,
    RankFailure,
    StorageTimeoutError,
)
from kempnerforge.checkpoint.protocol.rounds import LocalCollective, Rounds, Votes
from kempnerforge.checkpoint.runtime.meeting import Meeting
from kempnerforge.checkpoint.runtime.worker import Worker

__all__ = [
    "Collective",
    "GlooCollective",
    "first_line",
    "make_collective",
    "open_group",
    "pack_replies",
]

logger = logging.getLogger(__name__)

# torch has no public name for the store that the job was started with, and no types for its class.
_c10d: Any = dist.distributed_c10d

# In a small job a vote or an answer fits into one message of this size; the rest of a longer one
# follows in a second message.
_HEAD_BYTES = 4096
_LENGTH_BYTES = 8
_SHORTEST_WAIT_S = 0.001
# Gloo counts whole milliseconds, so its waits can end slightly before the deadline.
_ROUNDING_S = 0.01
# Most calls of the store have no deadline; they are abandoned this long after ours.
_STORE_SLACK_S = 1.0

_ADDRESS = re.compile(r" \[[0-9a-f.:]+\]:[0-9]+")

# The number of collectives created so far, by their ranks; equal on each of these ranks.
_made: Counter[str] = Counter()


class Collective(Rounds, Protocol):
    """Rounds of agreement, over connections that can be reopened."""

    def renew(self, worker: Worker | None = None) -> None:
        """Prepares for another round, even after an earlier one was abandoned. Collective.

        Args:
            worker: Idle worker to run the rendezvous on; created if None.

        Raises:
            PeerLostError: A rank is dead, so no further round is possible; or a rank did not
                arrive within the deadline.
        """


class GlooCollective:
    """Rounds over some ranks of the job. The constructor is collective over them.

    Args:
        timeout_s: Time limit for creating the groups.
        ranks: The participating ranks; None means all. ``rank`` is an index into them.
    """

    def __init__(self, *, timeout_s: float, ranks: Sequence[int] | None = None) -> None:
        members = tuple(range(dist.get_world_size())) if ranks is None else tuple(ranks)
        self.rank = members.index(dist.get_rank())
        self.world_size = len(members)
        self._timeout_s = timeout_s
        self._round = 0
        self._given_up = False
        self._closed: dict[int, str] = {}
        self._unfinished: list[tuple[Any, torch.Tensor]] = []
        self._retired: list[Any] = []
        self._store: Any = _c10d._get_default_store()
        self._name = _name_for(members)
        self._meeting = Meeting(self._store, name=self._name, rank=self.rank, members=members)
        self._votes: Any = None
        self._answers: Any = None
        self._bounded(self._open)

    def renew(self, worker: Worker | None = None) -> None:
        self._bounded(self._renew, worker)

    def close(self) -> None:
        """Releases the groups; no round may follow."""
        self._votes = self._answers = None
        self._retired = []

    def collect(self, value: object, *, timeout_s: float) -> Votes[Any] | None:
        self._round += 1
        deadline = time.monotonic() + timeout_s
        if self.rank != 0:
            try:
                self._send(self._votes, 0, value, deadline)
            except RuntimeError as error:
                # Its answer, or the lack of one, shows whether rank 0 is lost or gave up waiting.
                logger.warning("rank %d could not send its vote: %s", self.rank, error)
                self._note(0, error, deadline)
            return None
        return self._collect_at_root(value, deadline)

    def answer(self, replies: Sequence[object] | None, *, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        if replies is not None:
            self._answer_from_root(replies, deadline)
            return replies[0]
        try:
            return self._receive(self._answers, 0, deadline)
        except RuntimeError as error:
            self._note(0, error, deadline)
            if not _ran_out(deadline):
                raise _root_lost(first_line(error)) from error
            raise PeerLostError(
                f"rank 0 is lost or hung: no answer within {timeout_s:.1f} s ({first_line(error)})"
            ) from error

    def _bounded(self, call: Callable[[], None], lent: Worker | None = None) -> None:
        """Runs a call to the store, which hangs if the machine that serves the store does."""
        try:
            with nullcontext(lent) if lent else Worker("meeting of the ranks") as worker:
                worker.run(
                    call,
                    timeout_s=self._timeout_s + _STORE_SLACK_S,
                    doing="meeting the other ranks",
                )
        except StorageTimeoutError as error:
            raise PeerLostError(f"the store of the job does not answer: {error}") from error
        except RuntimeError as error:
            if isinstance(error, PeerLostError):
                raise
            raise PeerLostError(
                f"the other ranks cannot be reached; the rank that serves the job's store may be "
                f"dead ({first_line(error)})"
            ) from error

    def _renew(self) -> None:
        self._meeting.begin_attempt()
        self._meeting.require_living()
        if self._meeting.abandoned:
            self._meeting.declare_dead(self._closed)
            self._open()
        elif self.rank != 0 and 0 in self._closed:
            raise _root_lost(self._closed[0])

    def _open(self) -> None:
        deadline = time.monotonic() + self._timeout_s
        generation = self._meeting.gather(timeout_s=self._timeout_s)
        if self._votes is not None:
            # Kept, because a peer that hangs can still receive the answer waiting for it there.
            self._retired += [self._votes, self._answers]
        try:
            self._votes = self._group(f"{generation}/votes", deadline)
            self._answers = self._group(f"{generation}/answers", deadline)
        except RuntimeError:
            self._meeting.abandon()
            raise
        self._closed = {}
        self._round = 0

    def _group(self, name: str, deadline: float) -> Any:
        store = _c10d.PrefixStore(f"kempnerforge/{self._name}/{name}", self._store)
        return dist.ProcessGroupGloo(store, self.rank, self.world_size, _remaining(deadline))

    def _note(self, peer: int, error: RuntimeError, deadline: float) -> None:
        """Records what a failed wait for ``peer`` means: it closed, or the groups are unusable."""
        if not _ran_out(deadline):
            self._closed[peer] = first_line(error)
            return
        try:
            self._meeting.abandon()
        except RuntimeError as lost:
            logger.warning("the store of the job does not answer: %s", first_line(lost))

    def _collect_at_root(self, own: object, deadline: float) -> Votes[Any]:
        heads = {peer: self._post_receive(self._votes, peer) for peer in self._peers()}
        self._given_up = False
        values: list[Any] = [own] + [None] * (self.world_size - 1)
        lost: list[RankFailure] = []
        for peer, (work, head) in heads.items():
            try:
                values[peer] = self._finish_receive(self._votes, peer, work, head, deadline)
            except RuntimeError as error:
                self._note(peer, error, deadline)
                self._given_up |= _ran_out(deadline)
                lost.append(_lost(peer, error))
        return Votes(values=tuple(values), lost=tuple(lost))

    def _answer_from_root(self, replies: Sequence[object], deadline: float) -> None:
        sends = []
        packed = pack_replies(replies)
        for peer in self._peers():
            try:
                sends.append((peer, self._post_send(self._answers, peer, packed[peer])))
            except RuntimeError as error:
                logger.warning("rank %d cannot be answered: %s", peer, first_line(error))
        for peer, works in sends:
            self._await_delivery(peer, works, deadline)

    def _await_delivery(
        self, peer: int, works: list[tuple[Any, torch.Tensor]], deadline: float
    ) -> None:
        if self._given_up:
            # A peer that hangs receives its answer when it wakes up; the others get theirs now.
            self._unfinished.extend(works)
            return
        for work, _keep in works:
            try:
                work.wait(_remaining(deadline))
            except RuntimeError as error:
                logger.warning("rank %d did not receive its answer: %s", peer, first_line(error))
                self._note(peer, error, deadline)

    def _peers(self) -> range:
        return range(1, self.world_size)

    def _post_receive(self, group: Any, peer: int) -> tuple[Any, torch.Tensor]:
        head = torch.empty(_HEAD_BYTES, dtype=torch.uint8, device="cpu")
        try:
            return group.recv([head], peer, self._tag(0)), head
        except RuntimeError as error:
            return _Failed(error), head

    def _finish_receive(
        self, group: Any, peer: int, work: Any, head: torch.Tensor, deadline: float
    ) -> Any:
        work.wait(_remaining(deadline))
        raw = head.numpy().tobytes()
        length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
        data = raw[_LENGTH_BYTES : _LENGTH_BYTES + length]
        missing = length - len(data)
        if missing:
            tail = torch.empty(missing, dtype=torch.uint8, device="cpu")
            group.recv([tail], peer, self._tag(1)).wait(_remaining(deadline))
            data += tail.numpy().tobytes()
        return pickle.loads(data)  # noqa: S301  # written by a rank of this very job

    def _receive(self, group: Any, peer: int, deadline: float) -> Any:
        work, head = self._post_receive(group, peer)
        return self._finish_receive(group, peer, work, head, deadline)

    def _post_send(
        self, group: Any, peer: int, parts: Sequence[torch.Tensor]
    ) -> list[tuple[Any, torch.Tensor]]:
        return [
            (group.send([part], peer, self._tag(index)), part) for index, part in enumerate(parts)
        ]

    def _send(self, group: Any, peer: int, value: object, deadline: float) -> None:
        for work, _keep in self._post_send(group, peer, _pack(value)):
            work.wait(_remaining(deadline))

    def _tag(self, part: int) -> int:
        """Returns a tag that distinguishes parts of a message, and rounds if one is cut short."""
        return 2 * self._round + part


class _Failed:
    """A receive that could not be posted; it fails when it is waited for."""

    def __init__(self, error: RuntimeError) -> None:
        self._error = error

    def wait(self, timeout: timedelta) -> None:
        del timeout
        raise self._error


def make_collective(*, timeout_s: float) -> Collective:
    """Connects the ranks of this job. Collective if torch.distributed is initialised."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return GlooCollective(timeout_s=timeout_s)
    return LocalCollective()


def open_group(purpose: str, members: Sequence[int], *, timeout_s: float) -> Any:
    """Opens a gloo group that is not registered with torch.distributed. Collective.

    The group is closed with the last reference to it; its peers notice that.

    Args:
        purpose: Distinguishes it from other groups of these ranks.
        members: Ranks of the job, including this one; the same on each.
        timeout_s: Time limit for opening it, and for each operation on it.

    Raises:
        PeerLostError: A rank did not arrive, or the job's store is gone.
    """
    name, store = f"{purpose}/{_name_for((purpose, *members))}", _c10d._get_default_store()
    rank, timeout = members.index(dist.get_rank()), timedelta(seconds=timeout_s)
    meeting = Meeting(store, name=name, rank=rank, members=members)

    def make() -> Any:
        meeting.begin_attempt()
        meeting.gather(timeout_s=timeout_s)
        connections = _c10d.PrefixStore(f"kempnerforge/{name}", store)
        return dist.ProcessGroupGloo(connections, rank, len(members), timeout)

    try:
        with Worker(f"opening connections for {purpose}") as worker:
            doing = f"opening connections for {purpose}"
            return worker.run(make, timeout_s=timeout_s + _STORE_SLACK_S, doing=doing)
    except RuntimeError as error:
        raise PeerLostError(
            f"connections for {purpose} cannot be opened: {first_line(error)}"
        ) from error


def _name_for(members: Sequence[object]) -> str:
    ranks = hashlib.sha256(repr(members).encode()).hexdigest()[:12]
    _made[ranks] += 1
    return f"{ranks}-{_made[ranks]}"


def pack_replies(replies: Sequence[object]) -> list[tuple[torch.Tensor, ...]]:
    """Returns the messages to each rank; a reply to several ranks is packed once."""
    packed: dict[int, tuple[torch.Tensor, ...]] = {}
    for reply in replies:
        if id(reply) not in packed:
            packed[id(reply)] = _pack(reply)
    return [packed[id(reply)] for reply in replies]


def _pack(value: object) -> tuple[torch.Tensor, ...]:
    """Packs a value into one message, or into two if it does not fit into the first."""
    data = pickle.dumps(value)
    inline = _HEAD_BYTES - _LENGTH_BYTES
    head = len(data).to_bytes(_LENGTH_BYTES, "little") + data[:inline].ljust(inline, b"\0")
    rest = data[inline:]
    return (_as_tensor(head), _as_tensor(rest)) if rest else (_as_tensor(head),)


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _ran_out(deadline: float) -> bool:
    """Whether a wait that failed just now may have timed out."""
    return time.monotonic() >= deadline - _ROUNDING_S


def _remaining(deadline: float) -> timedelta:
    return timedelta(seconds=max(_SHORTEST_WAIT_S, deadline - time.monotonic()))


def _root_lost(reason: str) -> PeerLostError:
    failure = RankFailure(rank=0, kind=PeerLostError.__name__, message=reason)
    return PeerLostError(f"rank 0 is lost: {reason}", failures=(failure,))


def _lost(peer: int, error: RuntimeError) -> RankFailure:
    return RankFailure(
        rank=peer,
        kind=PeerLostError.__name__,
        message=f"died, hung or lost its connection before it voted ({first_line(error)})",
    )


def first_line(error: RuntimeError) -> str:
    """Returns gloo's message without source position and address, so it is equal on all ranks."""
    line = str(error).split("] ", 1)[-1].split(". This is", 1)[0].splitlines()[0]
    return _ADDRESS.sub("", line)
