"""The pytest worker's side of the warm server: start it, ask it for runs, end it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from harness.plan.model import Implementation
from harness.run.errors import HarnessError
from harness.scenario.schema import World

_BOOT_TIMEOUT_S = 300.0
"""Importing torch takes 4 s on an idle machine (FINDINGS of this project: 4 s), far more on a
loaded one with a cold disk."""


class WarmServer:
    """A process that has imported torch and forks the ranks of each run.

    Use it as a context manager, from the thread that created it: the kernel ends the server when
    that thread ends, so that nothing is left even after SIGKILL.
    """

    def __init__(self, log: Path) -> None:
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with log.open("ab") as output:
            arguments = (str(other.fileno()), str(os.getpid()), str(log.parent / "bytecode"))
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.job.server", *arguments],
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
            raise HarnessError(f"the warm server did not start; its log {self._log} ends:\n{tail}")

    def start(
        self,
        *,
        directory: Path,
        run: int,
        world: World,
        reads: bool,
        implementation: Implementation | None = None,
        mounts: str | None = None,
    ) -> socket.socket:
        """Fork the leader of one run; its messages come on the returned socket.

        `mounts` is where it finds the mounts in which the ranks are to live.
        """
        link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {
            "directory": str(directory),
            "run": run,
            "ranks": world.size,
            "nodes": world.nodes,
            "reads": reads,
            "wanted": (implementation or Implementation()).model_dump(),
        }
        if mounts is not None:
            request["mounts"] = mounts
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], [other.fileno()])
        except OSError as error:
            link.close()
            raise HarnessError(f"the warm server is gone: {error}; see {self._log}") from error
        finally:
            other.close()
        return link

    def close(self) -> None:
        """End the server. Leaders of runs in flight die with it."""
        self._control.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> WarmServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
