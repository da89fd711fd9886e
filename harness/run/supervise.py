"""The supervisor of one run: it performs the ranks' file operations, strikes, and keeps the trace.

Fault model: SIGKILL and SIGTERM of one rank, several or all, exactly before or after one operation
of one rank, or right after a training step. SIGKILL takes the rank's sub-processes with it, as the
end of a container does. The kernel hands over each file-changing call of every
rank, thread and sub-process; the supervisor performs them one at a time, so the order in the trace
is the order in which they happened. What a killed rank had written stays in the page cache: a kill
loses no written byte. Power cuts, failing disks and the network are out of scope here.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.evidence.evidence import Processes
from harness.evidence.operation import Landed, Operation
from harness.layout.protocol import Layout
from harness.plan.model import Strike
from harness.run.errors import HarnessError
from harness.run.perform import Gift, Performer, Request
from harness.run.seccomp import Listener, Notification
from harness.run.strikes import Due, Occasion

_SURVIVORS_GRACE_S = 5.0
"""How long ranks may go on after another has died, as an elastic agent would let them."""
_PUBLISHED_WAIT_S = 5.0
"""How long a strike waits for `latest`; a checkpointer that publishes later is struck anyway."""
_POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a supervisor is to watch: the job's directories and its planned strikes.

    `folder` is the run's own folder, where the ranks write their records; `root` is the checkpoint
    directory. Ranks that are alive after `deadline_s` are ended and reported as hung.
    """

    folder: Path
    root: Path
    ranks: int
    layout: Layout
    strikes: tuple[Strike, ...]
    deadline_s: float


@dataclass(slots=True)
class Trace:
    """What is kept of one run, in memory until it is over."""

    operations: list[Operation] = field(default_factory=list)
    landed: list[Landed] = field(default_factory=list)
    places: list[list[int]] = field(default_factory=list)
    written: bytearray = field(default_factory=bytearray)


@dataclass(slots=True, kw_only=True)
class _Held:
    """A rank that waits in its step record until `latest` names `step`."""

    notification: Notification
    value: int
    strikes: tuple[Strike, ...]
    step: int | None
    until: float


class Supervisor:
    """Serves one run from the leader's first message to its last."""

    def __init__(self, link: socket.socket, watch: Watch) -> None:
        records = {str(watch.folder / f"rank{rank}.jsonl"): rank for rank in range(watch.ranks)}
        self.trace = Trace(places=[[] for _ in range(watch.ranks)])
        self._link = link
        self._watch = watch
        self._tracker = watch.layout.tracker()
        self._due = Due.of(watch.strikes)
        self._performer = Performer(str(watch.root), records)
        self._listener: Listener | None = None
        self._started = time.monotonic()
        self._struckline = self._started + watch.deadline_s
        self._pids: list[int] = []
        self._rank_of_thread: dict[int, int] = {}
        self._struck: set[int] = set()
        self._exits: dict[int, int] = {}
        self._stop_at: float | None = None
        self._stopped: tuple[int, ...] = ()
        self._hung: tuple[int, ...] = ()
        self._over: list[str] | None = None
        self._held: list[_Held] = []
        self._last_save: int | None = None

    def run(self) -> Processes:
        """Serve until every process of the run is gone; whatever happens, none is left."""
        try:
            self._listener = self._receive_listener()
            while self._over is None:
                self._serve_once()
        finally:
            self._link.close()
            if self._listener is not None:
                self._listener.close()
            self._performer.close()
        return Processes(
            exits=tuple(self._exits.get(rank, -signal.SIGKILL) for rank in range(len(self._pids))),
            hung=self._hung,
            leaked=tuple(self._over),
            stopped=self._stopped,
            seconds=time.monotonic() - self._started,
        )

    def _receive_listener(self) -> Listener:
        message, descriptors, _, _ = socket.recv_fds(self._link, 256, 1)
        if not descriptors:
            raise HarnessError(f"the leader sent no listener: {message!r}; see the server's log")
        return Listener(descriptors[0])

    def _serve_once(self) -> None:
        assert self._listener is not None
        link, calls = self._link.fileno(), self._listener.descriptor
        ready, _, _ = select.select([calls, link], [], [], _POLL_S)
        if link in ready:
            self._hear_leader()
        if calls in ready and self._over is None:
            self._serve_call(self._listener)
        if self._held:
            self._release_held()
        self._watch_the_clock()

    # The leader's messages and the clock.

    def _hear_leader(self) -> None:
        raw = self._link.recv(65536)
        if not raw:
            raise HarnessError("the leader of the run died; see the server's log")
        message = json.loads(raw)
        if "ranks" in message:
            self._pids = message["ranks"]
            self._rank_of_thread = {pid: rank for rank, pid in enumerate(self._pids)}
            self._link.send(b"go")
        elif "exit" in message:
            rank, status = message["exit"]
            self._exits[rank] = status
            if status != 0 and self._stop_at is None:
                self._stop_at = time.monotonic() + _SURVIVORS_GRACE_S
        elif "over" in message:
            self._over = message["over"]

    def _watch_the_clock(self) -> None:
        now = time.monotonic()
        left = tuple(rank for rank in range(len(self._pids)) if rank not in self._exits)
        if now > self._struckline and not self._hung and left:
            self._hung = left
            self._link.send(b"stop")
        elif self._stop_at is not None and now > self._stop_at:
            self._stop_at = None
            self._stopped = left
            if left:
                self._link.send(b"stop")

    # The ranks' calls.

    def _serve_call(self, listener: Listener) -> None:
        notification = listener.receive()
        if notification is None:
            return
        try:
            request = self._performer.request(notification)
            rank = self._rank(notification.thread) if request is not None else 0
        except OSError:
            # The thread died between asking and being heard, or its arguments are unreadable:
            # the kernel gives the honest answer in both cases.
            listener.proceed(notification)
            return
        if request is None or rank is None:
            listener.proceed(notification)
        elif request.kind == "record":
            self._serve_record(listener, notification, request, rank)
        elif request.kind in ("open_record", "duplicate"):
            self._reply(listener, notification, self._perform(request)[0])
        else:
            self._serve_operation(listener, notification, request, rank)

    def _rank(self, thread: int) -> int | None:
        """The rank whose process, thread or sub-process this is."""
        found = self._rank_of_thread.get(thread)
        if found is not None:
            return found
        process = thread
        while process > 1:
            status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            group, parent = int(fields["Tgid"]), int(fields["PPid"])
            if group in self._rank_of_thread:
                self._rank_of_thread[thread] = self._rank_of_thread[group]
                return self._rank_of_thread[group]
            process = parent
        return None

    def _serve_operation(
        self, listener: Listener, notification: Notification, request: Request, rank: int
    ) -> None:
        if rank in self._struck:
            # Its process was struck and waits to die: nothing that it asked for may still happen.
            return
        save, phase = self._tracker.place(
            rank, request.kind, request.path, request.target, request.creates
        )
        occasion = Occasion(
            rank=rank, kind=request.kind, path=request.path, target=request.target,
            save=save, phase=phase,
        )  # fmt: skip
        due = self._due.at_operation(occasion)
        for strike in due:
            if strike.point.when == "before":
                self._hit(strike)
        if rank in self._struck:
            return
        result, error = (0, 0) if request.leave_to_kernel else self._perform(request)
        self._log(request, occasion, notification.thread, result, error)
        for strike in due:
            if strike.point.when == "after":
                self._hit(strike)
        if rank in self._struck:
            return
        if request.leave_to_kernel:
            listener.proceed(notification)
        else:
            self._reply(listener, notification, result)

    def _perform(self, request: Request) -> tuple[int | Gift, int]:
        try:
            return request.perform(), 0
        except OSError as error:
            number = error.errno or 5
            return -number, number

    def _reply(self, listener: Listener, notification: Notification, result: int | Gift) -> None:
        if isinstance(result, Gift):
            listener.answer_with_descriptor(
                notification, result.own, number=result.number, close_on_exec=result.close_on_exec
            )
        else:
            listener.answer(notification, result)

    def _log(
        self, request: Request, occasion: Occasion, thread: int, result: int | Gift, error: int
    ) -> None:
        data, size = None, request.size
        if request.kind == "write" and isinstance(result, int) and result >= 0:
            data, size = len(self.trace.written), result
            self.trace.written += request.data[:result]
        self.trace.operations.append(
            Operation(
                index=len(self.trace.operations),
                time_s=time.monotonic() - self._started,
                rank=occasion.rank,
                thread=thread,
                kind=request.kind,
                path=request.path,
                target=request.target,
                offset=request.offset,
                size=size,
                data=data,
                creates=request.creates,
                truncates=request.truncates,
                error=error,
                save=occasion.save,
                phase=occasion.phase,
            )
        )

    # Records and strikes.

    def _serve_record(
        self, listener: Listener, notification: Notification, request: Request, rank: int
    ) -> None:
        if rank in self._struck:
            return
        result, _ = self._perform(request)
        self.trace.places[rank].append(len(self.trace.operations))
        record = json.loads(request.data)
        strikes: tuple[Strike, ...] = ()
        if record["kind"] == "save_began":
            self._tracker.save_began(rank, record["step"], record["ordinal"])
            self._last_save = record["step"]
        elif record["kind"] == "stepped":
            strikes = self._due.at_step(rank, record["step"])
        value = result if isinstance(result, int) else 0
        held = tuple(strike for strike in strikes if strike.point.once_published)
        for strike in strikes:
            if strike not in held:
                self._hit(strike)
        if held:
            until = time.monotonic() + _PUBLISHED_WAIT_S
            self._held.append(
                _Held(
                    notification=notification, value=value, strikes=held,
                    step=self._last_save, until=until,
                )
            )  # fmt: skip
        elif rank not in self._struck:
            listener.answer(notification, value)

    def _release_held(self) -> None:
        assert self._listener is not None
        for held in tuple(self._held):
            if not self._published(held.step) and time.monotonic() < held.until:
                continue
            self._held.remove(held)
            for strike in held.strikes:
                self._hit(strike)
            self._listener.answer(held.notification, held.value)

    def _published(self, step: int | None) -> bool:
        return step is None or self._watch.layout.published(self._watch.root) == step

    def _hit(self, strike: Strike) -> None:
        """Send the signal. A killed rank is dead from here on, whatever it still asks for."""
        number = signal.SIGKILL if strike.fault == "kill" else signal.SIGTERM
        alive = [rank for rank in strike.ranks if rank not in self._struck | self._exits.keys()]
        if not alive:
            return
        for rank in alive:
            if strike.fault == "kill":
                _kill_tree(self._pids[rank])
            else:
                os.kill(self._pids[rank], number)
        if strike.fault == "kill":
            self._struck.update(alive)
        self.trace.landed.append(
            Landed(
                strike=strike.id,
                index=len(self.trace.operations),
                time_s=time.monotonic() - self._started,
                ranks=tuple(alive),
            )
        )


def _kill_tree(process: int) -> None:
    """SIGKILL a process and its descendants, the process first so that it starts no new ones."""
    descendants = _descendants(process)
    for pid in (process, *descendants):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(pid) for pid in listing.read_text(encoding="ascii").split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found
