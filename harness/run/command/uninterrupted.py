"""Runs a command twice without a fault: executed as it is, and under the supervisor.

The first run shows its ranks and what they import, so that they can be forked from then on. The
second one shows its file operations. Both together show whether it is deterministic, and whether a
forked start is one like any other.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.jobs.command.program import Program, executed
from harness.run.command.command import Command, CommandError
from harness.run.command.learning import Learned, learn
from harness.run.command.refusing import (
    refuse_empty,
    refuse_failed,
    refuse_moving,
    refuse_unusable,
    unexplained,
)
from harness.run.command.results import (
    Reference,
    ResultDifference,
    make_reference,
    newest_checkpoint,
)
from harness.run.command.room import Room, rooms
from harness.run.command.server import CommandServer, NotWarmError
from harness.run.command.starting import LOGS, NAME, Resuming, Starts, Watched, prepared
from harness.run.command.steps import StepLines, learn_step_lines
from harness.system.errors import HarnessError

Say = Callable[[str], None]

UNINTERRUPTED_S = 900.0
"""An uninterrupted run that takes longer is ended: hundreds of starts follow it."""
_FACTOR, _LEAST_S = 20.0, 30.0
"""A start may take so many times as long as the uninterrupted run, and at least this: it makes no
more steps than that, and may wait for something that is not there."""
_SYNCS = ("fsync", "sync")
"""Operations that count on the directory itself, which every state has."""
_NUMBER = re.compile(r"\d+")
_OWN_FOLDER = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninterrupted:
    """A command that nothing interrupts: how it is started, what it does, and what it leaves.

    `modules` are those that its ranks are forked with; None if it is executed. `limit_s` is how
    long any other start of it may take. `leaked` are the processes that outlive it.
    """

    starts: Starts
    modules: tuple[str, ...] | None
    watched: Watched
    reference: Reference
    steps: StepLines | None
    limit_s: float
    leaked: tuple[str, ...]
    records: Path
    """A folder of what its ranks recorded, if they did."""
    room: Room
    """Where other starts can be."""
    size: int
    """How many bytes it writes."""
    memory: int
    """How many bytes of memory its ranks have at most, if each has as many as the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ComparedRuns:
    """A watched run, and where its result is another than that of the executed one."""

    starts: Starts
    watched: Watched
    reference: Reference
    varies: tuple[ResultDifference, ...]


class Beginner:
    """Begins the test of a command in a folder; `say` gets a line when something is known.

    Every start sees its directory below `shown`. Its servers live until `stack` is closed.
    `limit_s` is how long a run may take.
    The first runs are on the disk: nobody knows yet how large their directories are.
    """

    def __init__(
        self,
        command: Command,
        folder: Path,
        stack: ExitStack,
        say: Say,
        *,
        shown: Path,
        limit_s: float = UNINTERRUPTED_S,
    ) -> None:
        self._command, self._folder, self._stack, self._say = command, folder, stack, say
        self._shown, self._limit_s = shown, limit_s
        shown.mkdir(parents=True, exist_ok=True)
        self._room = stack.enter_context(rooms(folder))

    def begin(self, *, result: tuple[str, ...], step_line: str | None, cold: bool) -> Uninterrupted:
        """Run it twice. `result` are patterns below its directory, if the user names any.

        It is executed at every start if `cold`, or if it cannot be forked. Raises CommandError if
        the command cannot be tested.
        """
        anew = self._cold_starts()
        learned = self._learn(anew)
        anew = replace(anew, launches=learned.ranks)
        found = None if cold else self._forked(anew, learned, result)
        found = found or self._compared(anew, learned, result)
        starts = self._with_resume(found.starts, anew, found.watched.ended.directory)
        self._say(
            f"not deterministic: in two uninterrupted runs {found.varies[0]}"
            if found.varies
            else f"deterministic; its result is {', '.join(found.reference.patterns)}"
        )
        varies = frozenset(one.path for one in found.varies)
        shutil.rmtree(learned.ended.directory)
        return Uninterrupted(
            starts=starts,
            modules=None if starts.server is anew.server else learned.modules,
            watched=found.watched,
            reference=replace(found.reference, varies=varies),
            steps=learn_step_lines(found.watched.ended.log(), step_line),
            limit_s=max(_LEAST_S, _FACTOR * learned.ended.seconds),
            leaked=learned.ended.leaked or found.watched.ended.leaked,
            records=self._kept(found.watched),
            room=self._room,
            size=sum(one.size for one in found.watched.operations if one.kind == "write"),
            memory=learned.ended.memory * learned.ranks,
        )

    def _kept(self, watched: Watched) -> Path:
        """Returns a folder that outlasts that of the watched run, with its records."""
        folder = self._folder / "records"
        folder.mkdir()
        for path in (watched.ended.folder / LOGS).glob("rank*.jsonl"):
            shutil.copy(path, folder)
        return folder

    # How it is started.

    def _cold_starts(self) -> Starts:
        server = self._server("cold", own_program(), ())
        server.wait_until_ready()
        return Starts(server, self._command.executed(self._shown / NAME), self._shown)

    def _with_resume(self, starts: Starts, cold: Starts, directory: Path) -> Starts:
        """Returns starts that resume with other words, if the user gives some.

        Their programs are seen in a start from the directory that the command leaves.
        """
        if not self._command.resume:
            return starts
        programs = self._command.executed(self._shown / NAME, resumes=True)
        resuming = Resuming(programs=programs, needs=self._command.needs)
        refuse_unusable(resuming, directory)
        if starts is not cold:
            folder = prepared(self._folder / "resumed")
            shutil.copytree(directory, folder / NAME, symlinks=True)
            learned = learn(replace(cold, programs=programs), folder, limit_s=self._limit_s)
            same = {one.interpreter for one in (*starts.programs, *learned.programs)}
            if learned.programs and len(same) == 1:
                return replace(starts, resuming=replace(resuming, programs=learned.programs))
            why = learned.obstacle or "the words of `--resume` start another interpreter"
            self._say(f"executed anew at each start: {why}")
        return replace(cold, resuming=resuming)

    def _warm_starts(self, learned: Learned) -> Starts | None:
        obstacle = learned.obstacle
        if not obstacle:
            server = self._server("warm", learned.programs[0], learned.modules)
            try:
                server.wait_until_ready()
            except (NotWarmError, HarnessError) as error:
                obstacle = str(error)
            else:
                self._say(f"forked from a process that has imported {len(learned.modules)} modules")
                return Starts(server, learned.programs, self._shown)
        self._say(f"executed anew at each start: {obstacle}")
        return None

    def _server(self, name: str, program: Program, modules: Sequence[str]) -> CommandServer:
        folder = self._folder / name
        folder.mkdir()
        return self._stack.enter_context(CommandServer(program, modules, folder))

    # Without a fault.

    def _learn(self, starts: Starts) -> Learned:
        self._say(f"runs {' '.join(starts.programs[0].words)}")
        learned = learn(starts, prepared(self._room.disk / "executed"), limit_s=self._limit_s)
        refuse_failed(learned.ended, self._limit_s)
        refuse_empty(learned.ended)
        self._say(f"ended in order after {learned.ended.seconds:.1f} s; ranks: {learned.ranks}")
        return learned

    def _forked(
        self, cold: Starts, learned: Learned, result: tuple[str, ...]
    ) -> _ComparedRuns | None:
        """Watches a forked run; None if that is not as good as an executed one."""
        starts = self._warm_starts(learned)
        if starts is None:
            return None
        try:
            found = self._compared(starts, learned, result)
        except CommandError as error:
            why = str(error).partition("\n")[0]
        else:
            other = _names(learned.ended.directory) ^ _names(found.watched.ended.directory)
            if other:
                why = f"it leaves other files: {min(other)}"
            elif not found.varies or not self._is_same_again(found.reference, cold, learned):
                return found
            else:
                why = str(found.varies[0])
        self._say(f"executed anew at each start: forked, {why}")
        return None

    def _compared(self, starts: Starts, learned: Learned, result: tuple[str, ...]) -> _ComparedRuns:
        """Watches a run, and compares what it leaves with what the executed one has left."""
        found = starts.watch(prepared(self._room.disk / "watched"), limit_s=self._limit_s)
        refuse_failed(found.ended, self._limit_s, found.mappings)
        refuse_moving(found.operations)
        operations = tuple(one for one in found.operations if one.path != "." or one.kind in _SYNCS)
        watched = replace(found, operations=operations)
        if not found.ended.leaked:  # else the directory may still change
            text = unexplained(found.operations, found.written, found.ended.directory)
            watched = replace(watched, unexplained=text)
        newest = newest_checkpoint(watched.operations, watched.ended.directory)
        patterns = result or ((newest,) if newest else ())
        reference = make_reference(patterns, watched.ended.directory, starts.server.read)
        if not reference.digests:
            raise CommandError(
                "no file of its directory could be its result: name some with `--result PATTERN`"
            )
        varies = tuple(reference.differences(learned.ended.directory, starts.server.read))
        return _ComparedRuns(starts=starts, watched=watched, reference=reference, varies=varies)

    def _is_same_again(self, reference: Reference, starts: Starts, learned: Learned) -> bool:
        """Whether two executed runs have the same result, so that a fork makes the difference."""
        again = starts.run(prepared(self._room.disk / "again"), limit_s=self._limit_s)
        same = make_reference(reference.patterns, again.directory, starts.server.read)
        differences = same.differences(learned.ended.directory, starts.server.read)
        again.remove()
        return not differences


def _names(directory: Path) -> set[str]:
    """Returns the names below a directory, whatever numbers they have: a process, a time."""
    return {_NUMBER.sub("#", str(one.relative_to(directory))) for one in directory.rglob("*")}


def own_program() -> Program:
    """Returns the program of a server that has imported nothing and executes commands."""
    return executed((), cwd=str(_OWN_FOLDER), environment=os.environ)
