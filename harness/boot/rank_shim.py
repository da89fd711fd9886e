"""A rank shim: started by another launcher for one rank, it becomes that rank's job launcher.

`python -m harness.boot.rank_shim DIRECTORY` finds the supervisor through a socket in the run
directory, and its rank in the environment, as any training script does. It puts itself under the
filter, forks the rank, passes signals on to it, and ends as the rank ended, so that the launcher
sees what it would have seen of the rank itself. When the shim dies, the kernel ends the rank, too.

It sends the messages of a job launcher (`job_launcher.py`), preceded by `{"shim": rank}`, and
`{"signal": number}` for each signal that it has passed on. The answer `{"run": ..., "reads": ...}`
says which start of the job it belongs to; a closed socket means that no rank is wanted any more.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from harness.boot.job_launcher import (
    Enter,
    adopt_orphans,
    all_over,
    enter_job,
    reap,
    report,
    start,
)
from harness.system.dispositions import restore_dispositions
from harness.system.meet import connect
from harness.system.parent import die_with_parent
from harness.system.seccomp import install_filter

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(directory: Path, enter_rank: Enter = enter_job) -> int:
    """Run one rank to its end; returns its status, or minus the signal that ended it."""
    parent, rank = os.getppid(), own_rank(os.environ)
    die_with_parent(parent)
    restore_dispositions()
    adopt_orphans()
    link = connect(directory)
    report(link, {"shim": rank})
    answer = link.recv(1024)
    if not answer:
        return 1
    request = {"directory": str(directory), "ranks": 1, "namespaces": (), **json.loads(answer)}
    return _lead_one(link, request, rank, enter_rank)


def own_rank(environment: Mapping[str, str]) -> int:
    """Returns the rank that the launcher gave to this process."""
    torchrun = "TORCHELASTIC_RUN_ID" in environment
    return int(environment["RANK" if torchrun else "SLURM_PROCID"])


def _lead_one(link: socket.socket, request: dict[str, Any], rank: int, enter_rank: Enter) -> int:
    listener = install_filter(reads=request["reads"])
    socket.send_fds(link, [b'{"listener": true}'], [listener])
    os.close(listener)
    # Early enough: a process that knows of the rank can send it a signal. No child inherits the
    # handlers.
    children = start(
        link, request, enter_rank, first=rank, forked=lambda pids: _pass_signals_on(link, *pids)
    )
    statuses = reap(link, request, children, enter_rank)
    report(link, all_over())
    return statuses.get(rank, 1)


def _pass_signals_on(link: socket.socket, rank: int) -> None:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(rank, number)
            report(link, {"signal": number})
        except ProcessLookupError:
            return  # it has ended, and its job launcher is about to

    for number in _PASSED_ON:
        signal.signal(number, pass_on)


def end_as(status: int) -> NoReturn:
    """End this process as its rank ended."""
    if -status in _PASSED_ON:
        signal.signal(-status, signal.SIG_DFL)
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    end_as(main(Path(sys.argv[1])))
