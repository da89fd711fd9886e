"""Runs a plain Python function as the ranks of a job under a real supervisor, without torch."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.boot import job_launcher
from harness.evidence.evidence import Processes
from harness.faults.strike import Strike
from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.run.backing import Folder
from harness.run.launch.local import LocalLaunch
from harness.run.supervise import Supervisor, Watch
from harness.run.trace import Trace


def supervise(
    body: Callable[[Path, int], None],
    directory: Path,
    *,
    ranks: int = 1,
    strikes: Sequence[Strike] = (),
    deadline_s: float = 20.0,
    request: Mapping[str, Any] | None = None,
) -> tuple[Trace, Processes]:
    """Fork a job launcher whose ranks run `body(directory, rank)`; return the trace and the ends.

    `request` is what the job launcher is told beside the usual. Where that has hosts, the
    supervisor reaches the directory through their mounts, as the ranks do.
    """
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    (directory / "run0").mkdir()
    link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def enter(_request: dict[str, Any], rank: int) -> int:
        return _alone(lambda: body(directory, rank))

    pid = os.fork()
    if pid == 0:
        link.close()
        usual: dict[str, Any] = {
            "directory": str(directory),
            "run": 0,
            "ranks": ranks,
            "reads": False,
            "nodes": 1,
        }
        usual["launcher"] = {"kind": "local"}
        wanted = {**usual, **(request or {})}
        os._exit(_alone(lambda: job_launcher.lead(other, wanted, enter)))
    other.close()
    watch = Watch(
        folder=directory / "run0",
        root=directory / "checkpoints",
        ranks=ranks,
        layout=LAYOUTS[DEFAULT],
        strikes=tuple(strikes),
        deadline_s=deadline_s,
        cut_power=Folder().cut,
        places=tuple(Path(host["place"]) for host in (request or {}).get("hosts", ())),
    )
    supervisor = Supervisor(LocalLaunch(link), watch)
    try:
        processes = supervisor.run()
    finally:
        os.waitpid(pid, 0)
        supervisor.trace.written.settle()
    return supervisor.trace, processes


def _alone(work: Callable[[], int | None]) -> int:
    """Does the work of a forked process; returns its exit status."""
    try:
        return work() or 0
    except BaseException:  # noqa: BLE001 - a test must not go on in two processes
        traceback.print_exc()
        return 1
