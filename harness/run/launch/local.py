"""The local launcher: the fork server's job launcher, which forks all ranks under one filter."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

from harness.run.launch.launch import News
from harness.run.links import Links
from harness.system.errors import HarnessError
from harness.system.seccomp import Listener
from harness.system.talk import receive, send


class LocalLaunch:
    """One run of a job launcher, over the socket protocol of `harness/boot/job_launcher.py`."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._ranks = 0
        self._links: Links | None = None

    def listen(self) -> tuple[Listener, Links | None]:
        """Receive the listener of the job launcher, and its network."""
        message, descriptors, _, _ = socket.recv_fds(self._link, 256, 3)
        if not descriptors:
            raise HarnessError(
                f"the job launcher sent no listener: {message!r}; see the server's log"
            )
        listener, *network = descriptors
        self._links = links_of(network)
        return Listener(listener), self._links

    def fileno(self) -> int:
        """Returns a descriptor that is readable when the job launcher sends something."""
        return self._link.fileno()

    def receive(self) -> Iterator[News]:
        """Yields the job launcher's next message."""
        raw, _ = receive(self._link)
        if not raw:
            raise HarnessError("the job launcher of the run died; see the server's log")
        message = json.loads(raw)
        if "ranks" in message:
            yield News(began=dict(enumerate(message["ranks"], self._ranks)))
            self._ranks += len(message["ranks"])
            send(self._link, b"go")
        elif "exit" in message:
            yield News(ended=dict([message["exit"]]))
        elif "over" in message:
            yield News(over=tuple(message["over"]), cpu_s=message["cpu_s"])

    def overdue(self) -> tuple[News, ...]:
        """Returns nothing: the job launcher announces everything itself."""
        return ()

    def stop(self) -> None:
        """Have the job launcher kill the ranks that are left."""
        send(self._link, b"stop")

    def start_second(self) -> None:
        """Have the job launcher fork a second job."""
        send(self._link, b"second")

    def expire(self) -> None:
        """Raises HarnessError: these ranks have no time limit."""
        raise HarnessError("time_limit needs `launcher: slurm` (found: local)")

    def close(self) -> None:
        """Let the job launcher go, and everything that is left with it."""
        self._link.close()
        if self._links is not None:
            self._links.close()


def links_of(network: list[int]) -> Links | None:
    """Returns the links behind a job launcher's descriptors."""
    if not network:
        return None
    switch, control = network
    return Links(switch=switch, control=socket.socket(fileno=control))
