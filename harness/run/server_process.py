"""A process that forks runs on request, over a socket. It ends when the socket closes."""

from __future__ import annotations

import signal
import socket
import subprocess
from types import TracebackType
from typing import Self


class ServerProcess:
    """The parent's side. Use it as a context manager, from the thread that created it: the kernel
    ends the server when that thread ends, so that nothing is left even after SIGKILL.
    """

    _control: socket.socket
    _process: subprocess.Popen[bytes]

    def close(self) -> None:
        """End the server. The job launchers of runs in flight die with it."""
        self._control.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
