"""One run of ranks that another launcher starts, each by a shim (`harness/boot/rank_shim.py`).

A shim that connects announces its rank and learns which run it belongs to: to the current run, as
long as none of its ranks has failed and this rank is not there yet; otherwise to the next one, for
which it waits. The run is over when its shims are gone and either the next run begins or the
launcher has ended. A launcher that does neither is ended: an agent whose peer is gone can wait
forever.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.run.launch.launch import News
from harness.run.launch.launcher import Launcher
from harness.run.launch.listeners import Listeners
from harness.run.links import Links
from harness.system.errors import HarnessError
from harness.system.talk import receive, send

_BOOT_S = 180.0
"""Until the ranks of a run must be there: they boot cold, which took 5 s on idle cores."""
_LAST_WORDS_S = 15.0
"""Until a launcher whose last run has ended must end itself. Torchrun takes less than a second, or
300 if it waits for a peer that is gone."""


@dataclass(slots=True, kw_only=True)
class _Shim:
    """The shim of one rank, until it reports that it is over or its socket closes."""

    rank: int
    link: socket.socket
    exit: int | None = None
    over: bool = False


class RankShims:
    """The shims of one run, as a `Launch`."""

    def __init__(self, launcher: Launcher, *, run: int, ranks: int, reads: bool) -> None:
        self._launcher = launcher
        self._answer = json.dumps({"run": run, "reads": reads}).encode()
        self._may_go_on = run < launcher.last_run
        self._ranks = ranks
        self._calls = Listeners()
        self._shims: dict[int, _Shim] = {}
        self._ready = select.epoll()
        for descriptor in launcher.descriptors():
            self._ready.register(descriptor, select.EPOLLIN)
        self._leaked: list[str] = []
        self._cpu_s = 0.0
        self._since = time.monotonic()

    def listen(self) -> tuple[Listeners, Links | None]:
        """Returns the listeners of all shims, including those still to come."""
        return self._calls, self._launcher.links

    def fileno(self) -> int:
        """Returns a descriptor that is readable when a shim or the launcher has news."""
        return self._ready.fileno()

    def receive(self) -> Iterator[News]:
        """Yields the messages so far."""
        for descriptor, _ in self._ready.poll(0):
            if descriptor == self._launcher.door.fileno():
                self._launcher.accept()
            elif descriptor == self._launcher.job_launcher.fileno():
                self._receive_from_launcher()
            else:
                yield from self._receive_from_shim(self._task_of(descriptor))
        self._admit()
        yield from self._end()

    def _task_of(self, descriptor: int) -> _Shim:
        return next(one for one in self._shims.values() if one.link.fileno() == descriptor)

    def _receive_from_launcher(self) -> None:
        self._launcher.receive()
        if self._launcher.over is not None:
            self._ready.unregister(self._launcher.job_launcher.fileno())

    def _admit(self) -> None:
        """Admit to this run the waiting shims that belong to it."""
        if any(one.exit for one in self._shims.values()):
            return  # one of its ranks has failed: a shim that comes now was restarted
        for waiting in self._launcher.take_waiting(lambda rank: rank not in self._shims):
            self._shims[waiting.rank] = _Shim(rank=waiting.rank, link=waiting.link)
            send(waiting.link, self._answer)
            self._ready.register(waiting.link.fileno(), select.EPOLLIN)

    def _receive_from_shim(self, shim: _Shim) -> Iterator[News]:
        raw, descriptors = receive(shim.link)
        for descriptor in descriptors:
            self._calls.add(descriptor)
        message = json.loads(raw) if raw else {}
        if "ranks" in message:
            yield News(began={shim.rank: message["ranks"][0]})
            send(shim.link, b"go")
        elif "exit" in message:
            yield self._ended(shim, message["exit"][1])
        elif "signal" in message:
            yield News(signalled=(shim.rank,))
        elif "over" in message:
            self._leaked += message["over"]
            self._cpu_s += message["cpu_s"]
        if not raw or "over" in message:
            yield from self._let_go(shim)

    def _let_go(self, shim: _Shim) -> Iterator[News]:
        """Remove a shim that is gone; a killed shim took its rank along without a message."""
        self._ready.unregister(shim.link.fileno())
        shim.over = True
        self._since = time.monotonic()
        if shim.exit is None:
            yield self._ended(shim, -signal.SIGKILL)

    def _ended(self, shim: _Shim, status: int) -> News:
        failed_before = any(one.exit for one in self._shims.values())
        shim.exit = status
        stopped = failed_before and -status in (signal.SIGTERM, signal.SIGKILL)
        return News(ended={shim.rank: status}, stopped=(shim.rank,) if stopped else ())

    def _end(self) -> Iterator[News]:
        if any(not one.over for one in self._shims.values()):
            return
        launcher_is_over = self._launcher.over is not None
        if launcher_is_over or (self._shims and self._launcher.has_waiting()):
            self._leaked += self._launcher.over or ()
            yield News(over=tuple(self._leaked), cpu_s=self._cpu_s)

    def overdue(self) -> Iterator[News]:
        """Admit shims that arrived before the run began; end a launcher that is stuck."""
        self._admit()
        waits = len(self._shims) < self._ranks or self._may_go_on
        patience_s = _BOOT_S if waits else _LAST_WORDS_S
        busy = any(not one.over for one in self._shims.values())
        if not busy and time.monotonic() - self._since > patience_s:
            self._launcher.stop()
            self._since = time.monotonic()
        yield from self._end()

    def stop(self) -> None:
        """Kill the ranks that are left; the launcher then reports what it does."""
        for shim in self._shims.values():
            if not shim.over:
                send(shim.link, b"stop")

    def start_second(self) -> None:
        """Raises HarnessError: only the local launcher starts a second job."""
        raise HarnessError(
            "second_job needs `launcher: local`: no other launcher starts a second job"
        )

    def expire(self) -> None:
        """Let the launcher's time limit come."""
        self._launcher.expire()

    def close(self) -> None:
        """Release the shims; those that are left end with it."""
        for shim in self._shims.values():
            shim.link.close()
        self._ready.close()
