"""Tests a command from outside: `python -m harness try -- CMD ... {dir}`.

The command runs twice without a fault: executed as it is, and under the supervisor. From the
operations of the second run come the states that a kill, a torn write or a power cut can leave. The
command is started again from each, and judged by what comes of it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from harness.command.live import live_faults
from harness.command.outcome import CommandTrial, Setting, Standard
from harness.command.states import LeftState, in_order_of_interest, states_of
from harness.crash.restore import write_tree
from harness.jobs.command.program import Program, executed
from harness.judge.outcome import Outcome
from harness.run.command.command import Command, CommandError
from harness.run.command.learning import Learned, learn
from harness.run.command.results import (
    Reference,
    ResultDifference,
    make_reference,
    newest_checkpoint,
)
from harness.run.command.server import CommandServer, NotWarmError
from harness.run.command.starting import NAME, Ended, Starts, Watched, prepared, prepared_again
from harness.run.command.steps import learn_step_lines

Say = Callable[[str], None]

UNINTERRUPTED_S = 900.0
"""An uninterrupted run that takes longer is ended: hundreds of starts follow it."""
_FACTOR, _LEAST_S = 20.0, 30.0
"""A start from a state may take so many times as long as the uninterrupted run, and at least this:
it makes no more steps than that, and may wait for something that is not there."""
_LIVE_SHARE = 0.5
"""The time for faults while the command lives, in proportion to that for states."""
_LAST_CHARACTERS = 2000
_OWN_FOLDER = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class TryOptions:
    """Settings of the user.

    `result` are patterns below the directory. `limit_s` is how long a start may take; by default
    that is measured. `budget_s` is the time for all starts from states, of which at most `most` are
    made, `at_once` at a time.
    """

    command: Command
    result: tuple[str, ...] = ()
    step_line: str | None = None
    cold: bool = False
    limit_s: float | None = None
    budget_s: float = 60.0
    most: int | None = None
    at_once: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandReport:
    """Results for a command: all starts, `from_states` of them from some of all `states`.

    `seconds` is what the starts from states took.

    `not_judged` has a sentence for each question that nothing could answer.
    """

    tried: tuple[CommandTrial, ...]
    from_states: int
    states: int
    seconds: float
    not_judged: tuple[str, ...]


class CommandTest:
    """One command under test in a folder of its own; `say` gets a line when something is known."""

    def __init__(self, options: TryOptions, folder: Path, say: Say) -> None:
        self._options, self._folder, self._say = options, folder, say
        self._shown = folder / "at"
        self._shown.mkdir()

    def run(self) -> CommandReport:
        """Do all of it. Raises CommandError if the command cannot be tested."""
        with ExitStack() as stack:
            cold = self._cold_starts(stack)
            learned = self._learn(cold)
            cold = Starts(cold.server, cold.programs, self._shown, ranks=learned.ranks)
            starts = cold if self._options.cold else self._warm_starts(stack, learned) or cold
            starts, watched, standard = self._standard(starts, cold, learned)
            states = states_of(watched.operations, watched.written)
            kinds = Counter(one.kind for one in states)
            count = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
            self._say(f"{len(watched.operations)} operations leave {len(states)} states: {count}")
            limit_s = self._options.limit_s or max(_LEAST_S, _FACTOR * learned.ended.seconds)
            began = time.monotonic()
            tried = tuple(self._resume(starts, states, standard, limit_s))
            seconds = time.monotonic() - began
            struck = tuple(self._strike(starts, watched, standard, limit_s))
            return CommandReport(
                tried=(*tried, *struck),
                from_states=len(tried),
                states=len(states),
                seconds=seconds,
                not_judged=(*_not_judged(standard), *watched.unseen),
            )

    # How it is started.

    def _cold_starts(self, stack: ExitStack) -> Starts:
        command = self._options.command
        words = command.filled(self._shown / NAME)
        programs = [
            executed(words, cwd=str(command.cwd), environment=command.environment_of(rank))
            for rank in range(command.ranks)
        ]
        own = programs[0].changed(cwd=str(_OWN_FOLDER), environment=os.environ)
        server = self._server(stack, "cold", own, ())
        server.wait_until_ready()
        return Starts(server, programs, self._shown)

    def _warm_starts(self, stack: ExitStack, learned: Learned) -> Starts | None:
        obstacle = learned.obstacle
        if not obstacle:
            server = self._server(stack, "warm", learned.programs[0], learned.modules)
            try:
                server.wait_until_ready()
            except NotWarmError as error:
                obstacle = str(error)
            else:
                self._say(f"forked from a process that has imported {len(learned.modules)} modules")
                return Starts(server, learned.programs, self._shown)
        self._say(f"executed anew at each start: {obstacle}")
        return None

    def _server(
        self, stack: ExitStack, name: str, program: Program, modules: Sequence[str]
    ) -> CommandServer:
        folder = self._folder / name
        folder.mkdir()
        return stack.enter_context(CommandServer(program, modules, folder))

    # Without a fault.

    def _learn(self, cold: Starts) -> Learned:
        words = " ".join(cold.programs[0].words)
        self._say(f"runs {words}")
        learned = learn(cold, prepared(self._folder / "executed"), limit_s=UNINTERRUPTED_S)
        self._refuse_failed(learned.ended)
        if not learned.ended.directory.exists() or not any(learned.ended.directory.iterdir()):
            raise CommandError(
                "the command ends in order and leaves nothing in its directory: "
                "is {dir} the right word of it, and does it save within its run?"
            )
        self._say(f"ended in order after {learned.ended.seconds:.1f} s; ranks: {learned.ranks}")
        return learned

    def _refuse_failed(self, ended: Ended) -> None:
        if ended.hung:
            raise CommandError(
                f"the command did not end within {UNINTERRUPTED_S:.0f} s: give it fewer steps"
            )
        if ended.failed:
            rank = ended.first_failed
            raise CommandError(
                f"the command fails by itself, with status {ended.statuses[rank]}. Its output "
                f"ends:\n{ended.log(rank)[-_LAST_CHARACTERS:]}"
            )

    def _standard(
        self, starts: Starts, cold: Starts, learned: Learned
    ) -> tuple[Starts, Watched, Standard]:
        """Runs it under the supervisor, and compares what that leaves with the executed run.

        If forked starts have another result than executed ones, the command is executed instead.
        """
        watched, reference = self._watch(starts)
        varies = reference.differences(learned.ended.directory, starts.server.read)
        if varies and starts is not cold:
            again = cold.run(prepared(self._folder / "again"), limit_s=UNINTERRUPTED_S)
            same = make_reference(reference.patterns, again.directory, starts.server.read)
            between = same.differences(learned.ended.directory, starts.server.read)
            if not between:
                self._say(f"executed anew at each start: forked, {_first(varies)}")
                return self._standard(cold, cold, learned)
        self._say(
            f"not deterministic: in two uninterrupted runs {_first(varies)}"
            if varies
            else f"deterministic; its result is {', '.join(reference.patterns)}"
        )
        standard = Standard(
            reference=replace(reference, varies=frozenset(one.path for one in varies)),
            steps=learn_step_lines(watched.ended.log(), self._options.step_line),
            directory=self._shown / NAME,
        )
        return starts, watched, standard

    def _watch(self, starts: Starts) -> tuple[Watched, Reference]:
        folder = prepared(self._folder / "watched")
        found = starts.watch(folder, limit_s=UNINTERRUPTED_S)
        self._refuse_failed(found.ended)
        watched = replace(
            found, operations=tuple(one for one in found.operations if one.path != ".")
        )
        newest = newest_checkpoint(watched.operations, watched.ended.directory)
        patterns = self._options.result or ((newest,) if newest else ())
        reference = make_reference(patterns, watched.ended.directory, starts.server.read)
        if not reference.digests:
            raise CommandError(
                "no file of its directory could be its result: name some with `--result PATTERN`"
            )
        return watched, reference

    # From states.

    def _resume(
        self, starts: Starts, states: Sequence[LeftState], standard: Standard, limit_s: float
    ) -> Iterator[CommandTrial]:
        until = time.monotonic() + self._options.budget_s
        of: dict[Path, LeftState] = {}

        def folders() -> Iterator[Path]:
            ordered = islice(in_order_of_interest(states), self._options.most)
            for number, state in enumerate(ordered):
                if time.monotonic() > until:
                    return
                folder = prepared(self._folder / f"state{number}", _filler(state))
                of[folder] = state
                yield folder

        for ended in starts.run_all(folders(), at_once=self._options.at_once, limit_s=limit_s):
            state = of.pop(ended.folder)
            setting = Setting(kind=state.kind, place=state.place, text=state.describe())
            yield standard.judge(setting, ended, starts.server.read)
            ended.remove()

    # While it lives.

    def _strike(
        self, starts: Starts, watched: Watched, standard: Standard, limit_s: float
    ) -> Iterator[CommandTrial]:
        """Strikes a running command, and starts it again in what that left."""
        until = time.monotonic() + self._options.budget_s * _LIVE_SHARE
        faults = live_faults(watched.operations, ranks=starts.ranks)
        for number, fault in enumerate(islice(faults, self._options.most)):
            if time.monotonic() > until:
                return
            setting = Setting(kind="fault", place=fault.place, text=fault.text)
            folder = prepared(self._folder / f"fault{number}")
            struck = starts.watch(folder, limit_s=limit_s, strikes=(fault.strike,))
            if struck.fired and struck.ended.hung:
                yield standard.trial(setting, Outcome.HANG, "it did not end after the fault")
            elif struck.fired:
                ended = starts.run(prepared_again(struck.ended), limit_s=limit_s)
                yield standard.judge(setting, ended, starts.server.read)
            struck.ended.remove()


def _filler(state: LeftState) -> Callable[[Path], None] | None:
    if state.operation is None:
        return None
    return lambda root: write_tree(state.parts, state.tree, root)


def _first(differences: Sequence[ResultDifference]) -> str:
    return f"{differences[0].path} {differences[0].text}"


def _not_judged(standard: Standard) -> Iterator[str]:
    if standard.steps is None:
        yield (
            "where it resumed: no line of its output has the number of a step; "
            "`--step-line REGEX` says what to look for"
        )
    varies = standard.reference.varies
    if varies:
        yield f"{', '.join(sorted(varies))}: two uninterrupted runs leave different ones"
