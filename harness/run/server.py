"""The pytest worker's side of the fork server: starts it, asks it for runs, ends it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.plan.model import Implementation
from harness.run.server_process import ServerProcess
from harness.scenario.launcher import LauncherSettings
from harness.system.errors import HarnessError
from harness.system.host import Host
from harness.world import World

_BOOT_TIMEOUT_S = 300.0
"""Importing torch takes 4 s on an idle machine, far more on a loaded one with a cold disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of a job, as it is requested from the server.

    `mounts` is the namespace in which the ranks are to live. If `launcher` is not the local one,
    the job launcher forks that launcher, for this run and those that it covers. `hosts` are those
    of the job and of a second one, none if all ranks live on the machine. `slurm` has the
    configuration of a cluster and the name of the job.
    """

    directory: Path
    run: int
    world: World
    reads: bool
    implementation: Implementation = field(default_factory=Implementation)
    mounts: str | None = None
    hosts: tuple[Host, ...] = ()
    slurm: Mapping[str, str] | None = None
    launcher: LauncherSettings = field(default_factory=LauncherSettings)

    def as_request(self) -> dict[str, Any]:
        """Returns the request that the server passes on to the job launcher."""
        some = {"mounts": self.mounts, "slurm": self.slurm}
        given = {key: value for key, value in some.items() if value is not None}
        return {
            "directory": str(self.directory),
            "run": self.run,
            "ranks": self.world.size,
            "nodes": self.world.nodes,
            "reads": self.reads,
            "hosts": [host.as_request() for host in self.hosts],
            "launcher": self.launcher.model_dump(),
            "wanted": self.implementation.code,
            **given,
        }


class ForkServer(ServerProcess):
    """A process that has imported torch and forks the ranks of each run."""

    def __init__(self, log: Path) -> None:
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with log.open("ab") as output:
            arguments = (str(other.fileno()), str(os.getpid()), str(log.parent / "bytecode"))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.boot.server", *arguments],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=Path(__file__).parents[2],
            )
        other.close()
        self._log = log

    def wait_until_ready(self) -> None:
        """Wait until the server has imported what ranks need. Raises HarnessError."""
        self._control.settimeout(_BOOT_TIMEOUT_S)
        try:
            answer = self._control.recv(64)
        except TimeoutError:
            answer = b""
        self._control.settimeout(None)
        if answer != b"ready":
            tail = self._log.read_text(errors="replace")[-4000:]
            raise HarnessError(f"the fork server did not start; its log {self._log} ends:\n{tail}")

    def start(self, wanted: Start) -> socket.socket:
        """Fork the job launcher of one run; its messages arrive on the returned socket."""
        link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = wanted.as_request()
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], [other.fileno()])
        except OSError as error:
            link.close()
            raise HarnessError(f"the fork server is gone: {error}; see {self._log}") from error
        finally:
            other.close()
        return link
