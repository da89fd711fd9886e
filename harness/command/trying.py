"""Tests a command from outside: `python -m harness try -- CMD ... {dir}`.

From the operations of an uninterrupted run come the states that a kill, a torn write or a power cut
can leave. The command is started again from each, and judged by what comes of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from harness.command.from_states import StateStarts
from harness.command.live import live_faults
from harness.command.outcome import CommandTrial, Setting, Standard, resumes_nothing, too_early
from harness.command.progress import TrialProgress
from harness.command.states import LeftState, in_order_of_interest, states_of
from harness.judge.outcome import Outcome
from harness.run.command.command import Command, CommandError
from harness.run.command.known import not_judged
from harness.run.command.starting import Starts, Watched, prepared, prepared_again
from harness.run.command.steps import check_expression
from harness.run.command.uninterrupted import UNINTERRUPTED_S, Beginner, Say, Uninterrupted
from harness.run.outside import describe

_LIVE_SHARE = 0.5
"""The time for faults while the command lives, in proportion to that for states."""
_TELLING = 8
"""After so many starts from states all over the run it shows whether any of them resumes."""


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

    def __post_init__(self) -> None:
        if self.step_line is not None:
            check_expression(self.step_line)


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
    """One command under test in a folder of its own; `say` gets a line when something is known.

    Every start sees its directory below `shown`. After a run, `uninterrupted` is what the starts
    were compared with, and `is_large` says whether they were too large for shared memory.
    """

    def __init__(
        self, options: TryOptions, folder: Path, say: Say, *, shown: Path | None = None
    ) -> None:
        self._options, self._folder, self._say = options, folder, say
        self._at_once = options.at_once
        self._progress = TrialProgress(say)
        self._shown = shown or folder / "at"
        self.uninterrupted: Uninterrupted | None = None
        self.is_large = False

    def run(self) -> CommandReport:
        """Do all of it. Raises CommandError if the command cannot be tested."""
        with ExitStack() as stack:
            found = self.uninterrupted = self._begin(stack)
            standard = Standard(
                reference=found.reference,
                steps=found.steps,
                directory=found.starts.directory,
                leaked=found.leaked,
            )
            watched = found.watched
            states = [] if watched.unexplained else states_of(watched.operations, watched.written)
            kinds = Counter(one.kind for one in states)
            count = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
            self._say(f"{len(watched.operations)} operations leave {len(states)} states: {count}")
            limit_s = self._options.limit_s or found.limit_s
            self._make_room(found)
            began = time.monotonic()
            tried = tuple(self._resume(found.starts, states, standard, limit_s))
            _refuse_forgetful(tried, standard, states)
            _refuse_unsuccessful(tried)
            seconds = time.monotonic() - began
            struck = tuple(self._strike(found.starts, watched, standard, limit_s))
            early = too_early((*tried, *struck))
            if not tried and not struck and watched.unexplained:
                raise CommandError(f"nothing can be judged, not even {watched.unexplained}")
            return CommandReport(
                tried=tuple(one for one in (*tried, *struck) if one not in early),
                from_states=len(tried),
                states=len(states),
                seconds=seconds,
                not_judged=(
                    *_failed_early(early),
                    *not_judged(found.reference, found.steps, found.leaked),
                    *([watched.unexplained] if watched.unexplained else ()),
                    *watched.unseen,
                    *_elsewhere(watched.outside),
                ),
            )

    def _begin(self, stack: ExitStack) -> Uninterrupted:
        options = self._options
        begin = Beginner(
            options.command,
            self._folder,
            stack,
            self._say,
            shown=self._shown,
            limit_s=options.limit_s or UNINTERRUPTED_S,
        )
        return begin.begin(result=options.result, step_line=options.step_line, cold=options.cold)

    def _make_room(self, found: Uninterrupted) -> None:
        """Decides where all other starts have their directories, and how many fit at once."""
        wanted = self._options.at_once
        self._folder = found.room.place(found.size, at_once=wanted)
        self.is_large = found.room.memory not in (None, self._folder)
        self._at_once = found.room.at_once(
            self._folder, size=found.size, memory=found.memory, wanted=wanted
        )
        if self._at_once < wanted:
            self._say(f"no more than {self._at_once} starts at once fit in this machine")

    # From states.

    def _resume(
        self, starts: Starts, states: Sequence[LeftState], standard: Standard, limit_s: float
    ) -> Iterator[CommandTrial]:
        options, tried = self._options, list[CommandTrial]()
        if not states:
            return
        last = _last_kill(states)
        others = [one for one in in_order_of_interest(states) if one is not last]
        ordered = [last, *others][: options.most]
        each = StateStarts(
            starts=starts,
            folder=self._folder,
            at_once=self._at_once,
            limit_s=limit_s,
            until_s=time.monotonic() + options.budget_s,
        )
        self._progress.begin("states", len(ordered))
        for state, ended in each.run(ordered):
            setting = Setting(kind=state.kind, place=state.place, text=state.describe())
            tried.append(standard.judge(setting, ended, starts.server.read))
            self._progress.note(tried[-1])
            if len(tried) == _TELLING:
                _refuse_forgetful(tried, standard, states)
                _refuse_unsuccessful(tried)
            yield tried[-1]

    # While it lives.

    def _strike(
        self, starts: Starts, watched: Watched, standard: Standard, limit_s: float
    ) -> Iterator[CommandTrial]:
        """Strikes a running command, and starts it again in what that left."""
        until = time.monotonic() + self._options.budget_s * _LIVE_SHARE
        faults = live_faults(watched.operations, ranks=starts.ranks)[: self._options.most]
        self._progress.begin("faults", len(faults))
        for fault in faults:
            if time.monotonic() > until:
                return
            own = fault.strike.fault
            setting = Setting(kind="fault", place=fault.place, text=fault.text, fault=own)
            folder = prepared(self._folder / "fault")
            struck = starts.watch(folder, limit_s=limit_s, strikes=(fault.strike,))
            if struck.fired:
                if struck.ended.hung:
                    found = standard.trial(setting, Outcome.HANG, "it did not end after the fault")
                else:
                    ended = starts.run(prepared_again(struck.ended), limit_s=limit_s)
                    found = standard.judge(setting, ended, starts.server.read)
                self._progress.note(found)
                yield found
            struck.ended.remove()


def _last_kill(states: Sequence[LeftState]) -> LeftState:
    """Returns the state of the last kill: it shows whether the command resumes."""
    return max((one for one in states if one.kind == "killed"), key=lambda one: one.place)


def _refuse_forgetful(
    tried: Sequence[CommandTrial], standard: Standard, states: Sequence[LeftState]
) -> None:
    if standard.steps is None or not states:
        return
    first = standard.steps.lines[0].step
    if resumes_nothing(tried, first, _last_kill(states).place):
        raise CommandError(
            f"it resumes nothing: all of {len(tried)} starts made step {first} again, also the one "
            "in the directory that an uninterrupted run leaves. If it needs other words to resume, "
            "give them with `--resume WORDS`"
        )


def _refuse_unsuccessful(tried: Sequence[CommandTrial]) -> None:
    others = [one for one in tried if one.other_words]
    if others and all(one.outcome is Outcome.HARD_FAIL for one in others):
        raise CommandError(
            f"the words of `--resume` work from none of {len(others)} states: {others[0].text}"
        )


def _failed_early(early: Sequence[CommandTrial]) -> Iterator[str]:
    if early:
        last = max(one.setting.place for one in early)
        yield (
            f"{len(early)} starts with the words of `--resume`, which failed up to operation {last}"
            ": there may be no checkpoint yet"
        )


def _elsewhere(outside: Sequence[str]) -> Iterator[str]:
    if outside:
        yield (
            f"what it changes outside of its directory: {describe(outside)}; every start finds "
            "that as the one before has left it"
        )
