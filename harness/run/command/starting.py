"""Starts a command, several times at once, each with a directory of its own at the same path.

Checkpoints and settings hold absolute paths, so every start must see its directory where the first
one saw it. Each has its own mounts, in which a folder of its own is shown there.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.content import Bytes
from harness.evidence.evidence import WRITTEN, Processes
from harness.evidence.operation import Operation
from harness.evidence.store import StoredBytes
from harness.faults.strike import Strike
from harness.jobs.command.program import Program
from harness.layouts.unknown import UnknownLayout
from harness.probe import VARIABLE
from harness.run.command.server import CommandServer, Shown
from harness.run.launch.local import LocalLaunch
from harness.run.supervise import Supervisor, Watch
from harness.system.clock import UndelayedClock, descendants
from harness.system.errors import HarnessError
from harness.system.talk import receive, send

LOGS = "run0"
NAME = "checkpoints"
"""The name of a command's directory, in the folder that is its own at each start."""
_POLL_S = 0.1
_MOST_BYTES = 4 << 20
"""Read of each end of an output."""
_PORT, _PORT_OF_TORCHRUN = "MASTER_PORT", "PET_MASTER_PORT"
_SURVIVORS_S = 1.0
"""How long the other ranks go on after one has failed, until they notice and say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one start of the command ended: a status for each rank, or minus the signal."""

    statuses: tuple[int, ...]
    hung: bool
    leaked: tuple[str, ...]
    seconds: float
    folder: Path
    """It has the directory, and the output of the ranks."""
    memory: int = 0
    """The most bytes of memory that one of its processes had."""
    first_failed: int = 0
    """The rank that failed before any other, if one did: what others raise can follow from it."""
    resumes: bool = False
    """Whether it was started with the words of a resume, where these are others."""

    @property
    def directory(self) -> Path:
        """The directory as the start left it."""
        return self.folder / NAME

    @property
    def failed(self) -> bool:
        """Whether any rank did not end in order."""
        return any(self.statuses)

    def log_path(self, rank: int = 0) -> Path:
        """Returns the file of a rank's output."""
        return self.folder / LOGS / f"rank{rank}.log"

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self, rank: int = 0) -> str:
        """Returns what a rank wrote to its output and error: of many megabytes, both ends."""
        path = self.log_path(rank)
        if not path.exists():
            return ""
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES)
            size = os.fstat(file.fileno()).st_size
            if size > 2 * _MOST_BYTES:
                text += b"\n...\n"
                file.seek(size - _MOST_BYTES)
            text += file.read()
        return text.decode(errors="replace")


@dataclass(slots=True, kw_only=True)
class _Running:
    folder: Path
    link: socket.socket
    ranks: int
    resumes: bool
    began: float = field(default_factory=time.monotonic)
    pids: list[int] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    hung: bool = False
    failed_at: float | None = None
    memory: int = 0
    clock: UndelayedClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = UndelayedClock(self.family)

    @property
    def first_failed(self) -> int:
        """The first rank whose end was reported as a failure."""
        return next((rank for rank, status in self.statuses.items() if status), 0)

    def family(self) -> list[int]:
        return [one for pid in self.pids for one in (pid, *descendants(pid))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A start under the supervisor: its operations below the directory, their bytes, and what may
    have changed files without being among them."""

    ended: Ended
    operations: tuple[Operation, ...]
    written: Bytes
    """Not all of them if anything struck."""
    unseen: tuple[str, ...]
    outside: tuple[str, ...] = ()
    """The paths outside of its directory that it changed."""
    mappings: tuple[str, ...] = ()
    """Its files of which it was refused a shared mapping."""
    unexplained: str = ""
    """Says which file is not as the operations would have left it, if one is not."""
    processes: Processes
    fired: bool = False
    """Whether anything struck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resuming:
    """The programs of a start that finds something in its directory, and all that `needs` names."""

    programs: tuple[Program, ...]
    needs: tuple[str, ...]

    def can_begin(self, directory: Path) -> bool:
        """Whether such a start is made in this directory."""
        found = directory.is_dir() and any(directory.iterdir())
        return found and all(os.path.lexists(directory / one) for one in self.needs)


@dataclass(frozen=True, slots=True)
class Starts:
    """Starts of one command by one server: `programs` are those of its ranks, or the one of a
    launcher that starts `launches` of them. Others resume, if there are others for that.

    Each is given a folder of its own (`prepared`), and sees it where `shown` is.
    """

    server: CommandServer
    programs: tuple[Program, ...]
    shown: Path
    launches: int = 1
    resuming: Resuming | None = None

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return max(self.launches, len(self.programs))

    @property
    def directory(self) -> Path:
        """The path of the directory in the words of the command."""
        return self.shown / NAME

    def run(self, folder: Path, *, limit_s: float) -> Ended:
        """Start the command once, and wait for its end."""
        (ended,) = self.run_all(iter([folder]), at_once=1, limit_s=limit_s)
        return ended

    def watch(self, folder: Path, *, limit_s: float, strikes: tuple[Strike, ...] = ()) -> Watched:
        """Start the command once under the supervisor, which strikes it."""
        one = self._begin(folder, watched=True)
        launched = self.launches if one.ranks == 1 < self.launches else 0
        watch = Watch(
            folder=folder / LOGS,
            root=folder / NAME,
            called=self.directory,
            ranks=max(launched, one.ranks),
            launched=launched,
            layout=UnknownLayout(),
            strikes=strikes,
            deadline_s=limit_s,
            cut_power=lambda _: None,
        )
        supervisor = Supervisor(LocalLaunch(one.link), watch)
        with closing(supervisor.trace.written) as written:
            processes = supervisor.run()
            if not strikes:
                written.settle()
        statuses = processes.exits[: one.ranks]
        ended = Ended(
            statuses=statuses,
            hung=bool(processes.hung),
            leaked=processes.leaked,
            seconds=time.monotonic() - one.began,
            folder=folder,
            resumes=one.resumes,
            first_failed=next((rank for rank, one in enumerate(statuses) if one), 0),
        )
        return Watched(
            ended=ended,
            operations=tuple(supervisor.trace.operations),
            written=StoredBytes(folder / LOGS / WRITTEN),
            unseen=(*supervisor.trace.unseen, *written.problems),
            outside=supervisor.outside.changed(),
            mappings=tuple(supervisor.mappings),
            processes=processes,
            fired=bool(supervisor.trace.fired),
        )

    def _begin(self, folder: Path, *, watched: bool = False) -> _Running:
        """Start the command with the folder's directory."""
        (folder / LOGS).mkdir(parents=True)
        resuming = self.resuming
        if resuming is not None and not resuming.can_begin(folder / NAME):
            resuming = None
        port = free_port()
        programs = [started(one, port, folder / LOGS) for one in (resuming or self).programs]
        return _Running(
            folder=folder,
            link=self.server.start(
                folder, 0, programs, watched=watched, shown=Shown(folder, self.shown)
            ),
            ranks=len(programs),
            resumes=resuming is not None,
        )

    def run_all(self, folders: Iterator[Path], *, at_once: int, limit_s: float) -> Iterator[Ended]:
        """Start the command for each folder, and yield the ends as they come.

        A start that takes longer than `limit_s`, by a clock that does not count the time in which
        its processes wait for a processor, is ended.
        """
        running: dict[int, _Running] = {}
        waiting = True
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    folder = next(folders, None)
                    if folder is None:
                        waiting = False
                        break
                    one = self._begin(folder)
                    running[one.link.fileno()] = one
                yield from self._collect(running, limit_s)
        finally:
            for one in running.values():
                one.link.close()

    def _collect(self, running: dict[int, _Running], limit_s: float) -> Iterator[Ended]:
        for descriptor in select.select(list(running), [], [], _POLL_S)[0] if running else ():
            one = running[descriptor]
            leaked = self._note(one)
            if leaked is not None:
                del running[descriptor]
                one.link.close()
                yield Ended(
                    statuses=tuple(one.statuses.get(rank, -9) for rank in range(one.ranks)),
                    hung=one.hung,
                    leaked=leaked,
                    seconds=time.monotonic() - one.began,
                    folder=one.folder,
                    memory=one.memory,
                    resumes=one.resumes,
                    first_failed=one.first_failed,
                )
        for one in running.values():
            if not one.hung and one.clock.seconds() > limit_s:
                one.hung = True
                send(one.link, b"stop")
            elif one.failed_at is not None and time.monotonic() > one.failed_at + _SURVIVORS_S:
                one.failed_at = None
                send(one.link, b"stop")

    def _note(self, one: _Running) -> tuple[str, ...] | None:
        """Take a message in; returns what outlived the ranks once all is over."""
        raw, _ = receive(one.link)
        if not raw:
            raise HarnessError("the job launcher of a command died; see the server's log")
        message = json.loads(raw)
        if "ranks" in message:
            one.pids = message["ranks"]
            send(one.link, b"go")
        elif "exit" in message:
            rank, status = message["exit"]
            one.statuses[rank] = status
            if status and one.failed_at is None:
                one.failed_at = time.monotonic()
        elif "over" in message:
            one.memory = message["memory"]
            return tuple(message["over"])
        return None


def prepared_again(ended: Ended) -> Path:
    """Returns the folder of a start that finds what another one left."""
    shutil.rmtree(ended.folder / LOGS)
    return ended.folder


def prepared(folder: Path, fill: Callable[[Path], None] | None = None) -> Path:
    """Returns the folder of a start: with a directory that `fill` fills, or with none."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if fill is not None:
        (folder / NAME).mkdir()
        fill(folder / NAME)
    return folder


def started(program: Program, port: str, folder: Path) -> Program:
    """Returns a program whose ranks meet at a port of their own: several starts run at once.

    `folder` is where a probe in it writes its records.
    """
    ports = {one: port for one in (_PORT,) if one in program.environment}
    if program.words:
        ports[_PORT_OF_TORCHRUN] = port  # unless its words name another
    return program.changed(environment={**program.environment, **ports, VARIABLE: str(folder)})


def free_port() -> str:
    """Returns a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])
