"""The rendezvous at which a collective's ranks open process groups and learn which ranks are dead.

A gloo group is unusable after a wait that timed out, so the ranks sometimes need new groups while
the old ones cannot carry messages. They arrange that through the store that the job was started
with. Groups have generations::

    abandoned/G         a rank gave up on generation G; the value is the number of the attempt
    abandoned/G/R       rank R gave up, so its closed connections do not mean that it died
    arrived/G           number of ranks waiting to open generation G
    arrived/G/R         rank R is one of them
    dead                a rank is dead (the value says which); no further generation is possible

A rank checks ``abandoned`` before every round of a save or a load, so a rank that did not notice
the problem follows the others. A rank whose wait for a generation times out abandons it, which
directs later ranks to the next one. So ranks always meet if they wait at the same time. All ranks
count their attempts (saves and loads) in the same way. A rank that arrives at an attempt that the
others gave up on learns that at once, instead of waiting for ranks that wait for it elsewhere. A
dead rank is detected by its closed connections, without waiting. A rank whose machine vanished is
detected when the wait reaches its deadline. A rank that exited before there were connections has
recorded that (:mod:`departure`).

Every call can raise RuntimeError if the store is gone, which happens when the rank that serves it
dies; the caller turns that into a :class:`PeerLostError`.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from kempnerforge.checkpoint.errors import PeerLostError
from kempnerforge.checkpoint.runtime.departure import announce, require_present

__all__ = ["Meeting"]

_POLLS_S = (0.001, 0.1)
# A rank that gives up closes its connections shortly before it records that in the store.
_GRACE_S = 0.5


class Meeting:
    """The rendezvous of one collective, seen by one rank.

    Args:
        store: The job's key-value store.
        name: Name of the collective, the same on all of its ranks and used by no other.
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
        """Counts one more save or load."""
        self._attempt += 1

    @property
    def abandoned(self) -> bool:
        """Whether any rank gave up on the current generation."""
        return self._has(f"abandoned/{self._generation}")

    def abandon(self) -> None:
        """Gives up on the current generation, for all ranks."""
        self._set(f"abandoned/{self._generation}/{self._rank}")
        self._store.set(self._key(f"abandoned/{self._generation}"), str(self._attempt))

    def gather(self, *, timeout_s: float) -> int:
        """Waits until all ranks have arrived to open the next generation.

        Returns:
            The number of the generation, the same on every rank.

        Raises:
            PeerLostError: A rank is dead, has exited, or did not arrive within ``timeout_s``
                seconds; or another rank gave up on this attempt, before this rank arrived or while
                it waited.
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
        """Announces which of the ranks that closed their connections to this one are dead.

        Raises:
            PeerLostError: One of them had not given up, so it is dead.
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
        """Checks that no rank is known to be dead.

        Raises:
            PeerLostError: A rank is dead.
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
