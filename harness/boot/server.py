"""The fork server: it imports torch once, and forks a job launcher for each run.

Started by `harness.run.server` as `python -m harness.boot.server DESCRIPTOR PARENT FOLDER`, where
FOLDER keeps bytecode. Each message on the control socket is one run and carries one descriptor, the
job launcher's end of that run's own socket. When the control socket closes, or the parent dies, the
server ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from harness.boot.job_launcher import lead
from harness.jobs.implementation_server import ImplementationServers
from harness.jobs.training.preload import preload
from harness.system.dispositions import restore_dispositions
from harness.system.limits import raise_descriptor_limit
from harness.system.parent import die_with_parent


def _cache_bytecode(folder: Path) -> None:
    """Let the first rank compile what all later ones import, even if bytecode is not kept.

    Ranks import the code under test themselves; compiling it would take each of them longer.
    """
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(folder)


def serve(
    control: socket.socket, implementation_servers: ImplementationServers | None = None
) -> None:
    """Fork a job launcher for each request, here or in the implementation server, until EOF."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not message:
            return
        request = json.loads(message)
        if implementation_servers is None or not implementation_servers.pass_on(
            message, descriptors[0], request["wanted"]
        ):
            _fork_job_launcher(control, descriptors[0], request)
        os.close(descriptors[0])


def _fork_job_launcher(control: socket.socket, link: int, request: dict[str, Any]) -> None:
    if os.fork() == 0:
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os._exit(lead(socket.socket(fileno=link), request))


def main() -> None:
    """Preload, report readiness, serve."""
    parent = int(sys.argv[2])
    die_with_parent(parent)
    restore_dispositions()
    control = socket.socket(fileno=int(sys.argv[1]))
    raise_descriptor_limit()
    preload()
    _cache_bytecode(Path(sys.argv[3]))
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise RuntimeError(f"the fork server must have one thread when it forks, it has {threads}")
    # Imports torch, which must not happen before `preload`.
    from harness.jobs.untouched import refuse_touched

    refuse_touched()
    # The garbage collector leaves collected objects alone, so the forked ranks share their pages.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.send(b"ready")
    serve(control, ImplementationServers(serve, die_with_parent))


if __name__ == "__main__":
    main()
