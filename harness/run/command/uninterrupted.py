"""Runs a command twice without a fault: executed as it is, and under the supervisor.

The first run shows its ranks and what they import, so that they can be forked from then on. The
second one shows its file operations. Both together show whether it is deterministic, and whether a
forked start is one like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.jobs.command.program import Program, executed
from harness.run.command.command import Command, CommandError
from harness.run.command.last_words import last_words
from harness.run.command.learning import Learned, learn
from harness.run.command.results import Reference, make_reference, newest_checkpoint
from harness.run.command.server import CommandServer, NotWarmError
from harness.run.command.starting import NAME, Ended, Starts, Watched, prepared
from harness.run.command.steps import StepLines, learn_step_lines

Say = Callable[[str], None]

UNINTERRUPTED_S = 900.0
"""An uninterrupted run that takes longer is ended: hundreds of starts follow it."""
_FACTOR, _LEAST_S = 20.0, 30.0
"""A start may take so many times as long as the uninterrupted run, and at least this: it makes no
more steps than that, and may wait for something that is not there."""
_LAST_CHARACTERS = 2000
_OWN_FOLDER = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninterrupted:
    """A command that nothing interrupts: how it is started, what it does, and what it leaves.

    `limit_s` is how long any other start of it may take.
    """

    starts: Starts
    watched: Watched
    reference: Reference
    steps: StepLines | None
    limit_s: float


class Beginner:
    """Begins the test of a command in a folder; `say` gets a line when something is known.

    Its servers live until `stack` is closed.
    """

    def __init__(
        self, command: Command, folder: Path, stack: ExitStack, say: Say, *, cold: bool = False
    ) -> None:
        self._command, self._folder, self._stack, self._say = command, folder, stack, say
        self._cold = cold
        self._shown = folder / "at"
        self._shown.mkdir()

    def begin(self, *, result: tuple[str, ...], step_line: str | None) -> Uninterrupted:
        """Run it twice. `result` are patterns below its directory, if the user names any.

        Raises CommandError if the command cannot be tested.
        """
        executed_anew = self._cold_starts()
        learned = self._learn(executed_anew)
        executed_anew = executed_anew.of_ranks(learned.ranks)
        starts = executed_anew if self._cold else self._warm_starts(learned) or executed_anew
        watched, reference = self._watch(starts, result)
        varies = reference.differences(learned.ended.directory, starts.server.read)
        if (
            varies
            and starts is not executed_anew
            and self._is_same_again(reference, executed_anew, learned)
        ):
            self._say(f"executed anew at each start: forked, {varies[0]}")
            starts = executed_anew
            watched, reference = self._watch(starts, result)
            varies = reference.differences(learned.ended.directory, starts.server.read)
        self._say(
            f"not deterministic: in two uninterrupted runs {varies[0]}"
            if varies
            else f"deterministic; its result is {', '.join(reference.patterns)}"
        )
        return Uninterrupted(
            starts=starts,
            watched=watched,
            reference=replace(reference, varies=frozenset(one.path for one in varies)),
            steps=learn_step_lines(watched.ended.log(), step_line),
            limit_s=max(_LEAST_S, _FACTOR * learned.ended.seconds),
        )

    # How it is started.

    def _cold_starts(self) -> Starts:
        command = self._command
        words = command.filled(self._shown / NAME)
        programs = [
            executed(words, cwd=str(command.cwd), environment=command.environment_of(rank))
            for rank in range(command.ranks)
        ]
        own = programs[0].changed(cwd=str(_OWN_FOLDER), environment=os.environ)
        server = self._server("cold", own, ())
        server.wait_until_ready()
        return Starts(server, programs, self._shown)

    def _warm_starts(self, learned: Learned) -> Starts | None:
        obstacle = learned.obstacle
        if not obstacle:
            server = self._server("warm", learned.programs[0], learned.modules)
            try:
                server.wait_until_ready()
            except NotWarmError as error:
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
        learned = learn(starts, prepared(self._folder / "executed"), limit_s=UNINTERRUPTED_S)
        _refuse_failed(learned.ended)
        if not learned.ended.directory.exists() or not any(learned.ended.directory.iterdir()):
            raise CommandError(
                "the command ends in order and leaves nothing in its directory: "
                "is {dir} the right word of it, and does it save within its run?"
            )
        self._say(f"ended in order after {learned.ended.seconds:.1f} s; ranks: {learned.ranks}")
        return learned

    def _watch(self, starts: Starts, result: tuple[str, ...]) -> tuple[Watched, Reference]:
        found = starts.watch(prepared(self._folder / "watched"), limit_s=UNINTERRUPTED_S)
        _refuse_failed(found.ended)
        watched = replace(
            found, operations=tuple(one for one in found.operations if one.path != ".")
        )
        newest = newest_checkpoint(watched.operations, watched.ended.directory)
        patterns = result or ((newest,) if newest else ())
        reference = make_reference(patterns, watched.ended.directory, starts.server.read)
        if not reference.digests:
            raise CommandError(
                "no file of its directory could be its result: name some with `--result PATTERN`"
            )
        return watched, reference

    def _is_same_again(self, reference: Reference, starts: Starts, learned: Learned) -> bool:
        """Whether two executed runs have the same result, so that a fork makes the difference."""
        again = starts.run(prepared(self._folder / "again"), limit_s=UNINTERRUPTED_S)
        same = make_reference(reference.patterns, again.directory, starts.server.read)
        return not same.differences(learned.ended.directory, starts.server.read)


def _refuse_failed(ended: Ended) -> None:
    if ended.hung:
        raise CommandError(
            f"the command did not end within {UNINTERRUPTED_S:.0f} s: give it fewer steps"
        )
    if ended.failed:
        rank = ended.first_failed
        log = ended.log(rank)
        raise CommandError(
            f"the command fails by itself, with status {ended.statuses[rank]}: {last_words(log)}\n"
            f"Its output ends:\n{log[-_LAST_CHARACTERS:]}"
        )
