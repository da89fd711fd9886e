"""The job launcher of one run: it puts itself under the filter, forks the ranks and reaps them.

The job launcher has only one thread when it installs the filter, so that one listener gets the
calls of all ranks, their threads and their sub-processes. It is the subreaper of them all: whatever
outlives its rank is found here, reported and ended.

Messages to the supervisor, one JSON object each: `{"listener": ...}` (with the descriptor),
`{"ranks": [pid, ...]}`, `{"exit": [rank, status]}`, and `all_over`.
Messages from it: `go` starts the ranks; `second` forks those of a second job, which are reported as
`ranks` and started alike; `stop` kills those that are left, and so does a closed socket.

If another launcher starts the ranks (`agents.py`), the job launcher has no filter and forks that
launcher instead; each rank then has a job launcher of its own (`rank_shim.py`), which sends the
same messages.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness.system.clock import UndelayedClock
from harness.system.dying import is_dying
from harness.system.host import enter_host
from harness.system.mounts import enter_mounts, show
from harness.system.network import enter, make_network
from harness.system.parent import die_with_parent
from harness.system.seccomp import install_filter
from harness.system.stacks import stacks_of, write_on_request
from harness.system.talk import receive, send

_PR_SET_CHILD_SUBREAPER = 36
_ORPHAN_GRACE_S = 0.3
"""How long sub-processes can take to notice that their rank has ended in order, by a clock that
does not count the time in which they wait for a processor."""
_ORPHAN_LOOK_S = 0.05


Enter = Callable[[dict[str, Any], int], int]
"""Becomes a rank: gets the request and the rank's number, and returns its exit status."""


def enter_job(request: dict[str, Any], rank: int) -> int:
    """Runs a rank of the job that the plan of the run directory names."""
    # Imported here, because the server of a user's command has only the standard library.
    from harness.jobs.registry import job_named

    directory = request["directory"]
    plan = json.loads(Path(directory, "plan.json").read_bytes())
    return job_named(plan["job"]).enter(directory, request["run"], rank)


def lead(link: socket.socket, request: dict[str, Any], enter_rank: Enter = enter_job) -> int:
    """Run one job to its end. Returns the exit code of the job launcher."""
    parent = os.getppid()
    os.setsid()
    die_with_parent(parent)
    adopt_orphans()
    if "mounts" in request:
        enter_mounts(request["mounts"])
    if "shown" in request:
        show(*request["shown"])
    network = make_network(request["nodes"]) if request["nodes"] > 1 else None
    # Only descriptors: the supervisor knows from its plan which of them were sent.
    more = [] if network is None else [network.switch, network.control.fileno()]
    request["namespaces"] = () if network is None else network.nodes
    if not request.get("watched", True):
        reap(link, request, start(link, request, enter_rank, first=0), enter_rank)
    elif request["launcher"]["kind"] == "local":
        listener = install_filter(reads=request["reads"])
        socket.send_fds(link, [b'{"listener": true}'], [listener, *more])
        os.close(listener)
        reap(link, request, start(link, request, enter_rank, first=0), enter_rank)
    else:
        socket.send_fds(link, [b'{"launcher": true}'], more)
        # Imported here, because it needs torch, and a run with the local launcher does not.
        from harness.boot.agents import fork_agents

        reap(link, request, fork_agents(request), enter_rank)
    last = all_over()
    if "shown" in request and "mounts" in request:
        # Copies of mounts are gone with the namespace: a disk below them can be restarted.
        enter_mounts(f"/proc/{parent}/ns/mnt")
    report(link, last)
    return 0


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def all_over() -> dict[str, Any]:
    """Ends what is left; returns the last message: what that was, the processor time of this
    process and of all that it has reaped, and the most bytes of memory that one of these had."""
    left = orphans()
    own, reaped = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_s = sum(one.ru_utime + one.ru_stime for one in (own, reaped))
    return {"over": left, "cpu_s": cpu_s, "memory": reaped.ru_maxrss * 1024}


def start(
    link: socket.socket,
    request: dict[str, Any],
    enter_rank: Enter = enter_job,
    *,
    first: int,
    forked: Callable[[list[int]], None] = lambda _: None,
    others: Iterable[int] = (),
) -> dict[int, int]:
    """Fork a job whose lowest rank is `first`; its ranks begin once the supervisor knows them.

    `forked` is called with their processes before these are reported. If the supervisor refuses
    them, `others` are killed as well.
    """
    gate, opener = os.pipe()
    pids = {}
    for rank in range(first, first + request["ranks"]):
        pids[_fork_rank(link, request, rank, enter_rank, (gate, opener))] = rank
    forked(list(pids))
    report(link, {"ranks": list(pids)})
    if receive(link)[0] == b"go":
        os.write(opener, b"g" * len(pids))
    else:
        _kill([*pids, *others])
    # Not earlier: a signal may have ended the ranks already, and a pipe without a reader breaks.
    os.close(gate)
    os.close(opener)
    return pids


def _fork_rank(
    link: socket.socket,
    request: dict[str, Any],
    rank: int,
    enter_rank: Enter,
    pipe: tuple[int, int],
) -> int:
    job_launcher, (gate, opener) = os.getpid(), pipe
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    die_with_parent(job_launcher)
    _forget_children()
    if request["namespaces"]:
        ranks = request["ranks"]
        enter(request["namespaces"][rank % ranks * request["nodes"] // ranks])
    if request.get("hosts"):
        enter_host(request["hosts"][rank // request["ranks"]])
    link.close()
    os.close(opener)
    os.read(gate, 1)
    os.close(gate)
    write_on_request(stacks_of(Path(request["directory"], f"run{request['run']}"), rank))
    os._exit(_rank_main(request, rank, enter_rank))


def _rank_main(request: dict[str, Any], rank: int, enter_rank: Enter) -> int:
    folder = Path(request["directory"], f"run{request['run']}")
    log = os.open(folder / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    empty = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, empty), (1, log), (2, log)):
        os.dup2(source, target)
    try:
        return enter_rank(request, rank)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def report(link: socket.socket, message: dict[str, Any]) -> None:
    """Send a message to the supervisor; if it is gone, what it left must still be ended here."""
    send(link, json.dumps(message).encode())


def reap(
    link: socket.socket,
    request: dict[str, Any],
    pids: dict[int, int],
    enter_rank: Enter = enter_job,
) -> dict[int, int]:
    """Report each rank's end; kill the rest on request, or if the supervisor is gone.

    Returns the statuses by rank.
    """
    left, statuses = dict(pids), dict[int, int]()
    child_ended = _child_descriptor()
    while left:
        ready, _, _ = select.select([link.fileno(), child_ended], [], [])
        if link.fileno() in ready:
            message, _ = receive(link)
            if message in (b"stop", b""):
                _kill(list(left))
            elif message == b"second":
                left |= start(link, request, enter_rank, first=request["ranks"], others=left)
        if child_ended in ready:
            os.read(child_ended, 4096)
        left = _collect(link, left, statuses)
    return statuses


def _child_descriptor() -> int:
    """Returns a descriptor that becomes readable at every SIGCHLD."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.kill(os.getpid(), signal.SIGCHLD)  # a rank may have ended before the handler was there
    return reading


def _forget_children() -> None:
    """In a rank: undo what tells the job launcher about ended children."""
    inherited = signal.set_wakeup_fd(-1)
    if inherited >= 0:
        os.close(inherited)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _collect(link: socket.socket, left: dict[int, int], statuses: dict[int, int]) -> dict[int, int]:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return {}
        if pid == 0:
            return left
        if pid in left:
            statuses[left[pid]] = os.waitstatus_to_exitcode(status)
            report(link, {"exit": [left[pid], statuses[left[pid]]]})
            left = {other: rank for other, rank in left.items() if other != pid}


def orphans() -> list[str]:
    """Wait a moment for the sub-processes of the ranks, then name and end those that are left."""
    clock = UndelayedClock(_children, look_every_s=_ORPHAN_LOOK_S)
    while _children() and clock.seconds() < _ORPHAN_GRACE_S:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                select.select([], [], [], 0.005)
        except ChildProcessError:
            break
    leaked = [_command_line(pid) for pid in _children() if not is_dying(pid)]
    while left := _children():
        _kill(left)
        for pid in left:
            os.waitpid(pid, 0)
    return leaked


def _children() -> list[int]:
    me = os.getpid()
    text = Path(f"/proc/{me}/task/{me}/children").read_text(encoding="ascii")
    return [int(pid) for pid in text.split()]


def _command_line(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return f"process {pid}"
    return f"process {pid}: {raw.replace(bytes(1), b' ').decode(errors='replace').strip()}"


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
