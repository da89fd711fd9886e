"""A process that has imported the implementation under test, and forks job launchers for it.

The fork server itself imports no implementation, because each run can name another. Importing one
is a large part of a rank's time. So the server forks an implementation server, which imports it
once, from the path that the plan names, and then forks the job launchers. If the import fails,
leaves a thread behind or touches a GPU, there is no implementation server: ranks then import for
themselves, and their errors are their own.

Whatever the code under test does at its import happens before any rank is watched. Out of scope:
code that writes to a checkpoint directory, or draws from a generator, at its import.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Serve = Callable[[socket.socket], None]

kept: dict[str, Any] | None = None
"""The module that this server and what it forks have imported, and its path."""


class ImplementationServers:
    """The fork server's side: one server at a time, for the implementation requested last."""

    def __init__(self, serve: Serve, die_with_parent: Callable[[int], None]) -> None:
        self._serve, self._die_with_parent = serve, die_with_parent
        self._wanted: dict[str, Any] | None = None
        self._link: socket.socket | None = None

    def pass_on(self, message: bytes, descriptor: int, wanted: dict[str, Any]) -> bool:
        """Give a run to the server of its implementation; returns False if there can be none."""
        if wanted != self._wanted:
            self._replace(wanted)
        if self._link is None:
            return False
        socket.send_fds(self._link, [message], [descriptor])
        return True

    def _replace(self, wanted: dict[str, Any]) -> None:
        self.close()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = os.getpid()
        if os.fork() == 0:
            mine.close()
            self._die_with_parent(server)
            self._keep(theirs, wanted)
        theirs.close()
        self._wanted = wanted
        if mine.recv(16) == b"ready":
            self._link = mine
        else:
            mine.close()

    def close(self) -> None:
        """End the implementation server, and the job launchers that it has forked."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _keep(self, link: socket.socket, wanted: dict[str, Any]) -> None:
        global kept
        try:
            if wanted["path"] is not None:
                sys.path.insert(0, wanted["path"])
            importlib.import_module(wanted["module"])
        except BaseException:  # noqa: BLE001 - a rank that imports it raises the same, as evidence
            os._exit(1)
        from harness.jobs.untouched import touched  # torch is there by now

        if len(list(Path("/proc/self/task").iterdir())) != 1 or touched() is not None:
            os._exit(1)
        kept = wanted
        gc.collect()
        gc.freeze()
        link.send(b"ready")
        self._serve(link)
        os._exit(0)
