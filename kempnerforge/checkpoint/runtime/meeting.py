"""Where the ranks of a collective meet to open process groups, and how they learn who is dead.

A gloo group whose wait ran out of time is of no use afterwards, so the ranks sometimes need new
groups while the old ones cannot carry a message. They arrange that through the store that the job
was started with. Groups come in generations::

    abandoned/G         some rank gave up on generation G, in the attempt whose number this holds
    abandoned/G/R       rank R did, so what it closed is no sign that it died
    arrived/G           how many ranks wait to open generation G
    arrived/G/R         rank R is one of them
    dead                a rank is dead, in words; there will never be another generation

A rank looks at ``abandoned`` before every round of saves and loads, so one that did not notice the
trouble follows the others. A rank whose wait for a generation times out abandons it, which sends
those who come later to the next one; ranks therefore always meet if they wait at the same time.
Ranks count their attempts (saves and loads) alike, so a rank that comes to an attempt that the
others gave up on is told so at once instead of waiting for ranks that wait for it elsewhere. A rank
that died is found by its closed connections, without waiting; one whose machine vanished is found
by waiting, which ends at the deadline. One that ended its program before there were connections
said so (:mod:`departure`).

Every call may raise RuntimeError where the store is gone, which it is when the rank that serves it
is; the caller makes that a :class:`PeerLostError`.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from kempnerforge.checkpoint.errors import PeerLostError
from kempnerforge.checkpoint.runtime.departure import announce, require_present

__all__ = ["Meeting"]

_POLLS_S = (0.001, 0.1)
# A rank that gives up closes its connections an instant before it says so in the store.
_GRACE_S = 0.5


class Meeting:
    """The meeting place of one collective, seen by one rank.

    Args:
        store: The job's key-value store.
        name: Of the collective, the same on all of its ranks and used by no other.
        rank: This rank within the collective.
        members: The ranks of the job that take part, in the order of the collective.
    """

    def __init__(self, store: Any, *, name: str, rank: int, members: Sequence[int]) -> None:
        self._store = store
        self._name = name
        self._rank = rank
        self._members = tuple(members)
        self._generation = -1
        self._attempt = 0

    def begin_attempt(self) -> None:
        """Count one more save or load."""
        self._attempt += 1

    @property
    def abandoned(self) -> bool:
        """Whether any rank gave up on the present generation."""
        return self._has(f"abandoned/{self._generation}")

    def abandon(self) -> None:
        """Give up on the present generation, for all ranks."""
        self._set(f"abandoned/{self._generation}/{self._rank}")
        self._store.set(self._key(f"abandoned/{self._generation}"), str(self._attempt))

    def gather(self, *, timeout_s: float) -> int:
        """Wait until all ranks are here to open the next generation.

        Returns:
            Its number, the same on every rank.

        Raises:
            PeerLostError: A rank is dead, has ended its program, or did not come within
                ``timeout_s`` seconds; or another gave up on this attempt, before this rank came or
                while it waited too.
        """
        announce()
        deadline = time.monotonic() + timeout_s
        self._arrive()
        pause_s = _POLLS_S[0]
        while self._arrivals() < len(self._members):
            self.require_living()
            require_present(self._store, self._members)
            if time.monotonic() >= deadline:
                missing = _ranks(self._missing())
                self.abandon()
                raise PeerLostError(
                    f"{missing} did not come to open connections within {timeout_s:.1f} s"
                )
            if self.abandoned:
                self._arrive()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _POLLS_S[1])
        return self._generation

    def declare_dead(self, closed: Iterable[int]) -> None:
        """Tell everyone who died, of the ranks that closed their connections to this one.

        Raises:
            PeerLostError: One of them did not close them because it gave up; so it is dead.
        """
        end = time.monotonic() + _GRACE_S
        silent = sorted(closed)
        while silent and time.monotonic() < end:
            silent = [peer for peer in silent if not self._gave_up(peer)]
            time.sleep(_POLLS_S[0])
        if silent:
            self._store.set(self._key("dead"), f"{_ranks(silent)} died")
        self.require_living()

    def require_living(self) -> None:
        """Do nothing while no rank is known to be dead.

        Raises:
            PeerLostError: One is.
        """
        if self._has("dead"):
            raise PeerLostError(self._store.get(self._key("dead")).decode())

    def _arrive(self) -> None:
        while self._generation < 0 or self.abandoned:
            self._require_in_time()
            self._generation += 1
        self._set(f"arrived/{self._generation}/{self._rank}")
        self._store.add(self._key(f"arrived/{self._generation}"), 1)

    def _require_in_time(self) -> None:
        key = self._key(f"abandoned/{self._generation}")
        if self._generation < 0 or int(self._store.get(key)) < self._attempt:
            return
        if not self._is_here(self._rank):
            raise PeerLostError("this rank came too late: the others gave up waiting for it")
        missing = self._missing()
        waited_for = f" for {_ranks(missing)}" if missing else ""
        raise PeerLostError(f"another rank gave up waiting{waited_for}")

    def _arrivals(self) -> int:
        return int(self._store.add(self._key(f"arrived/{self._generation}"), 0))

    def _missing(self) -> list[int]:
        return [peer for peer in self._peers() if not self._is_here(peer)]

    def _is_here(self, peer: int) -> bool:
        return self._has(f"arrived/{self._generation}/{peer}")

    def _gave_up(self, peer: int) -> bool:
        return self._has(f"abandoned/{self._generation}/{peer}")

    def _peers(self) -> range:
        return range(len(self._members))

    def _key(self, key: str) -> str:
        return f"kempnerforge/{self._name}/{key}"

    def _has(self, key: str) -> bool:
        return bool(self._store.check([self._key(key)]))

    def _set(self, key: str) -> None:
        self._store.set(self._key(key), "1")


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:8])
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}{more}"
