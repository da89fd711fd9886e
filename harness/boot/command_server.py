"""The fork server of a user's command: it imports what the command imports, and forks its ranks.

Started as `INTERPRETER .../command_server.py DESCRIPTOR REQUEST`, with the environment of a
rank. REQUEST is a JSON file with `modules`, in the order of their import. The first message on the
control socket is its answer: `ready`, or else why ranks forked from here would not be what the
command starts. Each message to it names a file: a run with its ranks' programs, or result files to
read. The descriptor with it is the job launcher's end of that run's socket, as for
`harness.boot.server`, or one that closes when the files have been read.

It needs only the standard library, and leaves no trace of the harness in the ranks.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    own = Path(__file__).resolve().parent
    SEARCH_PATH = [one for one in sys.path if one != str(own)]
    sys.path[:] = [str(own.parents[1]), *SEARCH_PATH]

from harness.boot.job_launcher import lead
from harness.jobs.command.entering import enter_program
from harness.jobs.command.reading import read_values
from harness.system.accelerators import open_device
from harness.system.dispositions import restore_dispositions
from harness.system.limits import raise_descriptor_limit

_HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})
"""Threads that mind a fork by themselves."""


def preload(modules: list[str]) -> None:
    """Imports the modules. One that cannot be imported here is left to the ranks."""
    # Hardly anything that is imported is garbage, and looking for it takes a fourth of the time.
    # What a module itself sets stays.
    thresholds = gc.get_threshold()
    gc.set_threshold(0)
    for name in modules:
        with suppress(BaseException):  # whatever it is, a rank that imports it raises the same
            importlib.import_module(name)
    if gc.get_threshold()[0] == 0:
        gc.set_threshold(*thresholds)


def obstacle() -> str | None:
    """Returns what stands in the way of a fork, or None."""
    threads = {
        (one / "comm").read_text().strip()
        for one in Path("/proc/self/task").iterdir()
        if int(one.name) != os.getpid()
    }
    if left := threads - _HARMLESS_THREADS:
        return f"its imports leave threads behind: {', '.join(sorted(left))}"
    device = open_device()
    return None if device is None else f"its imports open {device}"


def serve(control: socket.socket, search_path: list[str]) -> None:
    """Fork a job launcher for each request, until the control socket closes.

    That comes with the end of the parent, whatever ended it. The sockets of the runs close then,
    too, and each job launcher ends all that its ranks have started: they are waited for.
    """

    def enter_rank(request: dict[str, Any], rank: int) -> int:
        return enter_program(request["programs"][rank], search_path)

    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not message:
            with suppress(ChildProcessError):  # there are none, or no more
                os.waitpid(-1, 0)
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            request = json.loads(Path(os.fsdecode(message)).read_bytes())
            link = socket.socket(fileno=descriptors[0])
            os._exit(_read(request) if "files" in request else lead(link, request, enter_rank))
        os.close(descriptors[0])


def _read(request: dict[str, Any]) -> int:
    """Writes the values of each file, or why it cannot be read, to the request's `answer`."""
    found: list[dict[str, str] | str] = []
    for path in request["files"]:
        try:
            found.append(read_values(path))
        except BaseException as error:  # noqa: BLE001 - whatever the command's classes raise
            found.append(f"{type(error).__name__}: {error}")
    Path(request["answer"]).write_text(json.dumps(found), encoding="utf-8")
    return 0


def main(search_path: list[str]) -> None:
    """Preload, answer, serve."""
    restore_dispositions()
    control = socket.socket(fileno=int(sys.argv[1]))
    raise_descriptor_limit()
    sys.path[:] = search_path
    preload(json.loads(Path(sys.argv[2]).read_bytes())["modules"])
    reason = obstacle()
    control.send((reason or "ready").encode())
    if reason is not None:
        return
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    serve(control, search_path)


if __name__ == "__main__":
    main(SEARCH_PATH)
