"""A launcher that is nothing but a loop, and the tasks that it starts, without torch."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.boot import job_launcher, rank_shim
from harness.evidence.evidence import Processes
from harness.faults.strike import Strike
from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.run.backing import Folder
from harness.run.launch.launcher import Launcher
from harness.run.launch.rank_shims import RankShims
from harness.run.supervise import Supervisor, Watch
from harness.run.trace import Trace
from harness.system.parent import die_with_parent

Body = Callable[[Path, int, int], int]
"""What a rank does: `(directory, run, rank)` to its status."""
Agent = Callable[[Callable[[int], int]], None]
"""What a launcher does with a way to start the task of a rank, which returns its process."""


def lead_by(
    agent: Agent,
    body: Body,
    directory: Path,
    *,
    ranks: int = 1,
    runs: Sequence[Sequence[Strike]] = ((),),
) -> list[tuple[Trace, Processes]]:
    """Supervise all runs that one start of a launcher covers, each with its strikes."""
    (directory / "checkpoints").mkdir(parents=True)
    launcher = Launcher(directory, last_run=len(runs) - 1)
    link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        link.close()
        try:
            os._exit(_lead(agent, body, directory, other))
        finally:
            os._exit(1)  # a test must not go on in two processes
    other.close()
    try:
        launcher.begin(link)
        found = []
        for number, strikes in enumerate(runs):
            (directory / f"run{number}").mkdir()
            tasks = RankShims(launcher, run=number, ranks=ranks, reads=False)
            watch = Watch(
                folder=directory / f"run{number}",
                root=directory / "checkpoints",
                ranks=ranks,
                layout=LAYOUTS[DEFAULT],
                strikes=tuple(strikes),
                deadline_s=20.0,
                cut_power=Folder().cut,
            )
            supervisor = Supervisor(tasks, watch)
            found.append((supervisor.trace, supervisor.run()))
        return found
    finally:
        launcher.close()
        os.waitpid(pid, 0)


def _lead(agent: Agent, body: Body, directory: Path, link: socket.socket) -> int:
    """As the job launcher of a launcher."""
    job_launcher.adopt_orphans()
    link.send(b'{"launcher": true}')
    lead = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(lead)
        try:
            agent(lambda rank: _start_shim(body, directory, rank))
        finally:
            os._exit(0)
    job_launcher.reap(link, {"ranks": 1}, {child: 0})
    job_launcher.report(link, {"over": job_launcher.orphans(), "cpu_s": 0.0})
    return 0


def _start_shim(body: Body, directory: Path, rank: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            enter = lambda request, rank: body(directory, request["run"], rank)  # noqa: E731
            os.environ.update(RANK=str(rank), TORCHELASTIC_RUN_ID="test")
            rank_shim.end_as(rank_shim.main(directory, enter))
        finally:
            os._exit(1)  # a test must not go on in two processes
    return pid


def wait_for(process: int) -> int:
    """The status of a task, minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
