"""One start of a launcher, which covers one or several runs: its door, and its job launcher.

The job launcher forks the launcher. The door is a socket in the run directory. Rank shims that have
arrived and belong to no run yet wait here.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.run.launch.cluster import Cluster
from harness.run.launch.local import links_of
from harness.run.links import Links
from harness.system.errors import HarnessError
from harness.system.meet import close, listen
from harness.system.talk import receive, send

_ENDING_S = 20.0
"""For a job launcher that was asked to stop: it kills, and waits for what it killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A shim that has announced its rank."""

    rank: int
    link: socket.socket


class Launcher:
    """One launcher, owned by one scenario. `last_run` is the last run that this start covers."""

    def __init__(self, directory: Path, *, last_run: int, cluster: Cluster | None = None) -> None:
        self.directory = directory
        self.last_run = last_run
        self._cluster = cluster
        self.door = listen(directory)
        self.links: Links | None = None
        self.over: tuple[str, ...] | None = None
        self._job_launcher: socket.socket | None = None
        self._waiting: list[Waiting] = []

    @property
    def job_launcher(self) -> socket.socket:
        """The socket of the job launcher."""
        assert self._job_launcher is not None, "a launcher is begun before anything is asked of it"
        return self._job_launcher

    def begin(self, job_launcher: socket.socket) -> None:
        """Take over the forked job launcher, and wait for the network that it makes."""
        self._job_launcher = job_launcher
        message, descriptors, _, _ = socket.recv_fds(job_launcher, 256, 2)
        if not message:
            raise HarnessError("the job launcher of the launcher died; see the server's log")
        self.links = links_of(list(descriptors))

    def descriptors(self) -> list[int]:
        """Returns the descriptors to poll besides the shims of a run."""
        return [self.door.fileno(), *([self.job_launcher.fileno()] if self.over is None else [])]

    def accept(self) -> None:
        """Accept a shim, and read its rank."""
        link, _ = self.door.accept()
        raw = link.recv(1024)
        if raw:
            self._waiting.append(Waiting(rank=json.loads(raw)["shim"], link=link))

    def receive(self) -> None:
        """Read the job launcher's next message: how an agent ended, or that everything is over."""
        raw, _ = receive(self.job_launcher)
        if not raw:
            raise HarnessError("the job launcher of the launcher died; see the server's log")
        message = json.loads(raw)
        if "over" in message:
            self.over = tuple(message["over"])

    def has_waiting(self) -> bool:
        """Whether a live shim waits for the next run."""
        self._waiting = [one for one in self._waiting if not _has_ended(one.link)]
        return bool(self._waiting)

    def take_waiting(self, wanted: Callable[[int], bool]) -> list[Waiting]:
        """Returns waiting shims, one for each rank that is wanted."""
        found: dict[int, Waiting] = {}
        for one in self._waiting if self.has_waiting() else ():
            if wanted(one.rank):
                found.setdefault(one.rank, one)
        self._waiting = [one for one in self._waiting if one not in found.values()]
        return list(found.values())

    def stop(self) -> None:
        """Have the launcher killed."""
        if self.over is None:
            send(self.job_launcher, b"stop")

    @property
    def slurm(self) -> dict[str, str] | None:
        """The cluster's data for the job launcher, if there is a cluster."""
        if self._cluster is None:
            return None
        return {"configuration": str(self._cluster.configuration), "job": self._job}

    @property
    def _job(self) -> str:
        """The name of the batch job, which no other scenario has."""
        return f"{self.directory.name}-until-run{self.last_run}"

    def expire(self) -> None:
        """Set the job's time limit to soon, so that the launcher sends its signal."""
        if self._cluster is None:
            raise HarnessError(
                "time_limit needs `launcher: slurm`: no other launcher has a time limit"
            )
        self._cluster.expire(self._job)

    def close(self) -> None:
        """End the launcher and everything that it has started."""
        close(self.door, self.directory)
        for one in self._waiting:
            one.link.close()
        if self._job_launcher is None:
            return
        self.stop()
        if self._cluster is not None:
            self._cluster.cancel(self._job)
        self.job_launcher.settimeout(_ENDING_S)
        with suppress(TimeoutError):
            while self.over is None:
                self.receive()
        self.job_launcher.close()
        if self.links is not None:
            self.links.close()


def _has_ended(link: socket.socket) -> bool:
    """Whether a shim, which is silent until it gets an answer, has closed its end."""
    return bool(select.select([link], [], [], 0)[0])
