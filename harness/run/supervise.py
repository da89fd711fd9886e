"""The supervisor of one run: it performs the ranks' file operations, strikes, and keeps the trace.

The kernel hands over each file-changing call of every rank, thread and sub-process. The supervisor
performs them one at a time, so the order in the trace is the order in which they happened. A strike
falls exactly before or after one operation of one rank, instead of it, right after a training step,
or as a rank enters a period of its life. What a killed rank had written stays in the page cache: a
kill loses no written byte. The faults are defined in `harness/faults`; `effects.py` carries them
out. A power cut falls while nothing else happens, because the supervisor does one thing at a time.
"""

from __future__ import annotations

import gc
import itertools
import json
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from harness.budget import PUBLISHED_S, SURVIVORS_S
from harness.evidence.evidence import WRITTEN, Processes
from harness.faults.effects import Treatment
from harness.faults.strike import Strike
from harness.layouts.base import Layout
from harness.run.effects import RunEffects
from harness.run.late_operator import LateOperator
from harness.run.launch.launch import Calls, Launch, News
from harness.run.outside import Outside
from harness.run.perform import Performer
from harness.run.ranks import RankFinder
from harness.run.request import Gift, Request
from harness.run.second_job import SecondRanks
from harness.run.strikes import Due, Occasion, meets_reads
from harness.run.trace import Trace
from harness.run.written import Written
from harness.system.clock import UndelayedClock
from harness.system.limits import raise_if_exhausted
from harness.system.seccomp import Notification

_STACKS_S = 1.0
"""How long ranks that hang have to write their stacks."""
_POLL_S = 0.02
_TICK_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The task of a supervisor: the job's directories and its planned strikes.

    `folder` is the run's own folder, where the ranks write their records; `root` is the checkpoint
    directory, which the ranks see at `called` if that is another path. If no rank has recorded
    anything for `deadline_s` by the clock of the run, the remaining ones are ended and reported as
    hung. `survivors_s` is how long ranks can go on after another has died. `places` is where the
    supervisor reaches the directory as the ranks of the job see it, and then as those of a second
    job do; empty if they see it directly. `cut_power` lets nothing more reach the disk under the
    directory. `ends_saves` names the kinds of records after which a rank has no save under way.
    `launched` is the number of ranks if the harness starts only their launcher.
    """

    folder: Path
    root: Path
    ranks: int
    layout: Layout
    strikes: tuple[Strike, ...]
    deadline_s: float
    cut_power: Callable[[str], None]
    survivors_s: float = SURVIVORS_S
    places: tuple[Path, ...] = ()
    called: Path | None = None
    seed: int = 0
    ends_saves: frozenset[str] = frozenset({"drained"})
    launched: int = 0

    def performers(self, records: dict[str, int], outside: Outside) -> tuple[Performer, ...]:
        """Returns the performers for the job, and for a second job on another mount."""
        called, serials = str(self.called or self.root), itertools.count(1)
        return tuple(
            Performer(
                str(place),
                records,
                watches_reads=meets_reads(self.strikes),
                called=called,
                serials=serials,
                outside=outside,
            )
            for place in dict.fromkeys(self.places or (self.root,))
        )


class _PendingOperation(NamedTuple):
    """An operation that a rank waits for, with the strikes that fall after it.

    `error` is what its rank is answered although it was carried out; 0 for its result.
    """

    notification: Notification
    request: Request
    occasion: Occasion
    after: tuple[Strike, ...]
    error: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _WaitingRank:
    """A rank that waits in its step record until `step` is published."""

    notification: Notification
    value: int
    strikes: tuple[Strike, ...]
    step: int | None
    until_s: float


class Supervisor:
    """Serves one run from the first news of its processes to the last."""

    def __init__(self, launch: Launch, watch: Watch) -> None:
        jobs = 2 if any(one.fault.second_host for one in watch.strikes) else 1
        numbers = range(jobs * watch.ranks)
        records = {str(watch.folder / f"rank{rank}.jsonl"): rank for rank in numbers}
        self.trace = Trace(places=[[] for _ in numbers], written=Written(watch.folder / WRITTEN))
        self._launch = launch
        self._watch = watch
        self._trackers = [watch.layout.tracker() for _ in range(jobs)]
        # A rank reports what it does to itself at the moment when it does it.
        self._due = Due.of(one for one in watch.strikes if not one.fault.is_in_the_loop)
        self.outside = Outside(str(watch.folder))
        self.mappings: dict[str, None] = {}
        """The files of which a shared mapping was refused."""
        self._performers = watch.performers(records, self.outside)
        self._second = SecondRanks(first=watch.ranks)
        self._effects = RunEffects(
            trace=self.trace,
            launch=launch,
            late=LateOperator(
                root=watch.root, trace=self.trace, seed=watch.seed, layout=watch.layout
            ),
            second=self._second,
            now_s=self._now_s,
            cut=watch.cut_power,
        )
        self._signals = self._effects.signals
        self._storage = self._effects.storage
        self._limit = self._effects.limit
        self._signals.launched = watch.launched
        self._finder = RankFinder(self._signals)
        self._tick_at = 0.0
        self._clock = UndelayedClock(self._signals.family)
        self._reported_s = 0.0
        self._stop_at_s: float | None = None
        self._stopped: tuple[int, ...] = ()
        self._hung: tuple[int, ...] = ()
        self._end_hung_at: float | None = None
        self._over: tuple[str, ...] | None = None
        self._cpu_s = 0.0
        self._held: list[_WaitingRank] = []
        self._late: list[tuple[float, _PendingOperation]] = []
        self._last_save: int | None = None

    def run(self) -> Processes:
        """Serve until every process of the run is gone; whatever happens, none is left."""
        listener: Calls | None = None
        # From here on, the garbage collector examines only what the run makes. All that is imported
        # can take it a tenth of a second, in which the ranks wait.
        gc.freeze()
        try:
            listener, self._effects.links = self._launch.listen()
            poll = select.poll()
            for descriptor in (self._launch.fileno(), listener.descriptor):
                poll.register(descriptor, select.POLLIN)
            while self._over is None:
                self._serve_once(listener, poll)
        finally:
            gc.unfreeze()
            self._launch.close()
            if listener is not None:
                listener.close()
            for performer in self._performers:
                performer.close()
        ranks = range(max(self._watch.ranks, len(self._signals.pids)))
        exits = tuple(self._signals.exits.get(rank, -signal.SIGKILL) for rank in ranks)
        return Processes(
            exits=exits[: self._watch.ranks],
            second=exits[self._watch.ranks :],
            hung=self._hung,
            leaked=self._over,
            stopped=self._stopped,
            seconds=self.trace.seconds(),
            cpu_s=self._cpu_s,
            undelayed_s=self._now_s(),
            deadline_s=self._watch.deadline_s,
        )

    def _now_s(self) -> float:
        """Returns the clock of the run, by which all waiting is counted."""
        return self._clock.seconds()

    def _serve_once(self, listener: Calls, poll: select.poll) -> None:
        ready = [descriptor for descriptor, _ in poll.poll(1000 * _POLL_S)]
        if ready != [listener.descriptor] and self._launch.fileno() in ready:
            self._note(self._launch.receive())
        if listener.descriptor in ready and self._over is None:
            self._serve_call(listener)
        if self._held:
            self._release_held(listener)
        if self._late:
            self._carry_out_late(listener)
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + _TICK_S
            self._tick()

    def _tick(self) -> None:
        """Does the work that depends only on the time, instead of after each operation."""
        self._signals.wake()
        for strike, ranks in self._signals.end_graces(self._now_s()):
            self.trace.strike(strike.id, ranks, then="killed")
        for strike in self._effects.links.heal() if self._effects.links is not None else ():
            self.trace.strike(strike.id, strike.ranks, then="healed")
        self._note(self._launch.overdue())
        self._watch_the_clock()

    # News of the processes, and the clock.

    def _note(self, reports: Iterable[News]) -> None:
        for news in reports:
            self._signals.pids |= news.began
            self._finder.began(news.began)
            if news.began:
                self._reported_s = self._now_s()
            for rank, status in news.ended.items():
                self._note_exit(rank, status)
            self._stopped += tuple(set(news.stopped) - self._signals.killed)
            if news.signalled and (strike := self._limit.signalled(*news.signalled)) is not None:
                self.trace.strike(strike.id, strike.ranks, then="signalled")
                self._limit.release()
            if news.over is not None:
                self._over, self._cpu_s = news.over, news.cpu_s

    def _note_exit(self, rank: int, status: int) -> None:
        self._signals.exits[rank] = status
        self._reported_s = self._now_s()
        if not self._second.has(rank):
            if status != 0 and self._stop_at_s is None:
                self._stop_at_s = self._reported_s + self._watch.survivors_s
        elif self._second.ended(rank) and self._second.strike is not None:
            self.trace.strike(self._second.strike.id, self._second.strike.ranks, then="ended")
            self._second.release()

    def _watch_the_clock(self) -> None:
        left, now_s = self._signals.left(), self._now_s()
        if now_s - self._reported_s > self._watch.deadline_s and not self._hung and left:
            self._hung = left
            self._signals.ask_for_stacks(left)
            self._end_hung_at = time.monotonic() + _STACKS_S
        elif self._end_hung_at is not None and time.monotonic() > self._end_hung_at:
            self._end_hung_at = None
            self._launch.stop()
        elif self._stop_at_s is not None and now_s > self._stop_at_s:
            self._stop_at_s = None
            self._stopped += left
            if left:
                self._launch.stop()

    # The ranks' calls.

    def _serve_call(self, listener: Calls) -> None:
        notification = listener.receive()
        if notification is None:
            return
        try:
            request = self._performer(notification.thread).request(notification)
            rank = self._finder.of(notification.thread) if request is not None else None
        except OSError as error:
            raise_if_exhausted(error)
            # The thread died between its call and now, or its arguments are unreadable: the kernel
            # gives the correct answer in both cases.
            listener.proceed(notification)
            return
        if request is not None and rank is None:
            self.trace.unseen.append(
                f"a process that belongs to no rank any more asked to {request.kind} {request.path}"
            )
        if request is None or rank is None:
            listener.proceed(notification)
        elif self._signals.is_killed(rank, notification.thread) or rank in self._hung:
            # It waits to die: nothing that it asked for may still happen. A rank that hung can
            # have been woken by the request for its stacks.
            return
        elif request.kind == "record":
            self._serve_record(listener, notification, request, rank)
        elif request.kind in ("open_record", "duplicate", "refused", "mapping"):
            if request.kind == "mapping":
                self.mappings[request.path] = None
            self._reply(listener, notification, _perform(request))
        elif request.kind == "unseen":
            self.trace.unseen.append(
                f"rank {rank} gave {request.path} a low descriptor (dup2), as a shell or a "
                "subprocess with redirected output does; writes through it are not seen"
            )
            listener.proceed(notification)
        else:
            self._serve_operation(listener, notification, request, rank)

    def _performer(self, thread: int) -> Performer:
        """Returns the performer that reaches the directory as this thread does."""
        if len(self._performers) == 1:
            return self._performers[0]
        rank = self._finder.of(thread)
        return self._performers[rank is not None and self._second.has(rank)]

    def _serve_operation(
        self, listener: Calls, notification: Notification, request: Request, rank: int
    ) -> None:
        save, phase = self._trackers[self._second.has(rank)].place(
            rank, request.kind, request.path, request.target
        )
        occasion = Occasion(
            rank=rank,
            kind=request.kind,
            path=request.path,
            target=request.target,
            save=save,
            phase=phase,
        )
        due = self._due.at_operation(occasion)
        after: tuple[Strike, ...] = ()
        given: Treatment | None = None
        if due:
            after = tuple(strike for strike in due if strike.point.when == "after")
            given = self._strike_before(request, [one for one in due if one not in after])
            if self._signals.is_killed(rank, notification.thread):
                return
        treatment = given or self._storage.later(rank, request.kind)
        self._treat(listener, _PendingOperation(notification, request, occasion, after), treatment)

    def _strike_before(self, request: Request, due: Sequence[Strike]) -> Treatment | None:
        """Carries out the strikes that can fire; returns the treatment of the operation.

        An operation has one outcome: only the first fault that decides it fires. A write that
        cannot be split is not struck by a fault that splits it. The guard `strikes_fired` reports
        the others.
        """
        given: Treatment | None = None
        for strike in due:
            if strike.fault.decides_operation and given is not None:
                continue
            if strike.fault.splits_write and request.half is None:
                continue
            given = self._strike(strike) or given
        return given

    def _treat(self, listener: Calls, call: _PendingOperation, treatment: Treatment | None) -> None:
        """Carry an operation out, or do to it what a fault says."""
        if treatment is None:
            self._carry_out(listener, call, call.request)
        elif treatment.kind == "fail":
            self._finish(listener, call, call.request, -treatment.error)
        elif treatment.kind == "retransmit":
            self._carry_out(listener, call._replace(error=treatment.error), call.request)
        elif treatment.kind == "short_write" and call.request.half is not None:
            self._carry_out(listener, call, call.request.half())
        elif treatment.kind == "second_job":
            self._second.hold(lambda: self._carry_out(listener, call, call.request))
        elif treatment.seconds is not None:
            self._late.append((time.monotonic() + treatment.seconds, call))
        # An operation that never returns is never answered.

    def _carry_out(self, listener: Calls, call: _PendingOperation, request: Request) -> None:
        if self._signals.is_killed(call.occasion.rank, call.notification.thread):
            return
        self.trace.before(request)
        self._finish(listener, call, request, 0 if request.leave_to_kernel else _perform(request))

    def _carry_out_late(self, listener: Calls) -> None:
        now = time.monotonic()
        for due in [one for one in self._late if now >= one[0]]:
            self._late.remove(due)
            self._carry_out(listener, due[1], due[1].request)

    def _finish(
        self, listener: Calls, call: _PendingOperation, request: Request, result: int | Gift
    ) -> None:
        self.trace.operation(request, call.occasion, thread=call.notification.thread, result=result)
        if request.syncs and isinstance(result, int) and result >= 0:
            done = replace(request, kind="fsync", data=b"", large=None, size=0, offset=0)
            self.trace.operation(done, call.occasion, thread=call.notification.thread, result=0)
        for strike in call.after:
            self._strike(strike)
        if self._signals.is_killed(call.occasion.rank, call.notification.thread):
            return
        if call.error and result == 0:
            self._reply(listener, call.notification, -call.error)
        elif request.leave_to_kernel and result == 0:
            listener.proceed(call.notification)
        else:
            self._reply(listener, call.notification, result)

    def _reply(self, listener: Calls, notification: Notification, result: int | Gift) -> None:
        if isinstance(result, Gift):
            listener.answer_with_descriptor(
                notification, result.own, number=result.number, close_on_exec=result.close_on_exec
            )
        else:
            listener.answer(notification, result)

    # Records and strikes.

    def _serve_record(
        self, listener: Calls, notification: Notification, request: Request, rank: int
    ) -> None:
        result = _perform(request)
        value = result if isinstance(result, int) else 0
        self.trace.record(rank)
        self._reported_s = self._now_s()
        record = json.loads(request.data)
        strikes: tuple[Strike, ...] = ()
        if record["kind"] == "save_began":
            second = self._second.has(rank)
            for performer in self._performers:
                performer.watches_reads = False
            self._trackers[second].save_began(rank, record["step"], record["ordinal"])
            self._last_save = self._last_save if second else record["step"]
            self._heal(rank, save=record["ordinal"])
        elif record["kind"] in self._watch.ends_saves:
            self._trackers[self._second.has(rank)].save_ended(rank)
        elif record["kind"] == "stepped":
            strikes = self._due.at_step(rank, record["step"])
            self._heal(rank, step=record["step"])
        elif record["kind"] == "entered":
            strikes = self._due.at_period(rank, record["period"])
        elif record["kind"] == "struck":
            self.trace.strike(record["strike"], (rank,))
        held = tuple(strike for strike in strikes if strike.point.once_published)
        treatments = [self._strike(strike) for strike in strikes if strike not in held]
        if any(one is not None and one.kind == "second_job" for one in treatments):
            self._second.hold(lambda: listener.answer(notification, value))
        elif any(one is not None and one.kind == "time_limit" for one in treatments):
            self._limit.hold(lambda: listener.answer(notification, value))
        elif held:
            one = _WaitingRank(
                notification=notification,
                value=value,
                strikes=held,
                step=self._last_save,
                until_s=self._now_s() + PUBLISHED_S,
            )
            self._held.append(one)
        elif rank not in self._signals.killed:
            listener.answer(notification, value)

    def _release_held(self, listener: Calls) -> None:
        for held in tuple(self._held):
            if not self._published(held.step) and self._now_s() < held.until_s:
                continue
            self._held.remove(held)
            for strike in held.strikes:
                self._strike(strike)
            listener.answer(held.notification, held.value)

    def _published(self, step: int | None) -> bool:
        return step is None or self._watch.layout.published(self._watch.root) == step

    def _strike(self, strike: Strike) -> Treatment | None:
        """Carry out a strike; returns the treatment of the operation at its point, if any."""
        return strike.fault.carry_out(strike, self._effects)

    def _heal(self, rank: int, **moment: int) -> None:
        healed = self._storage.heal(rank, **moment)
        if healed is not None:
            self.trace.strike(healed.id, (rank,), then="healed")


def _perform(request: Request) -> int | Gift:
    """Carry out a request; an error becomes minus its number."""
    try:
        return request.perform()
    except OSError as error:
        raise_if_exhausted(error)
        return -(error.errno or 5)
