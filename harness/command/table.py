"""Formats what came of a command for people: causes, not states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.command.outcome import CommandTrial, roll_backs
from harness.command.trying import CommandReport
from harness.judge.outcome import Outcome

MOST_CAUSES = 12
_KINDS = {"killed": "kill", "torn": "torn write", "fault": "fault", "power": "power cut"}


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Starts that went wrong in the same way; the first is the one of the earliest instant."""

    outcome: Outcome
    members: tuple[CommandTrial, ...]

    @property
    def first(self) -> CommandTrial:
        """The one to look at: of a kill, if a kill is enough, and as early as possible."""
        return min(self.members, key=_least_first)


def causes_of(found: CommandReport) -> list[FailureCause]:
    """Returns the causes, those that need the least first: a kill, then a torn write, then a power
    cut."""
    groups: dict[tuple[Outcome, str], list[CommandTrial]] = {}
    for one in found.tried:
        if one.outcome is not Outcome.PASS:
            groups.setdefault(one.signature, []).append(one)
    causes = [FailureCause(outcome, tuple(members)) for (outcome, _), members in groups.items()]
    if back := roll_backs(found.tried):
        causes.append(FailureCause(Outcome.LOST_WORK, tuple(back)))
    return sorted(causes, key=lambda one: _least_first(one.first))


def _least_first(trial: CommandTrial) -> tuple[int, int]:
    return list(_KINDS).index(trial.setting.kind), trial.setting.place


def describe(found: CommandReport, more: Mapping[CommandTrial, str] | None = None) -> str:
    """Returns the table, and what was not judged. `more` has a line
    about a trial."""
    return "\n".join(_lines(found, more or {}))


def is_green(found: CommandReport) -> bool:
    """Whether every start from a state came to what the uninterrupted command came to."""
    return not causes_of(found)


def _lines(found: CommandReport, more: Mapping[CommandTrial, str]) -> Iterator[str]:
    tried, rate = found.from_states, 60 * found.from_states / max(found.seconds, 1e-3)
    passed = sum(one.outcome is Outcome.PASS for one in found.tried)
    yield (
        f"{tried} of {found.states} states tried in {found.seconds:.0f} s ({rate:.0f} a minute), "
        f"{len(found.tried) - tried} faults while it ran; "
        f"{passed} starts came to the result of the uninterrupted run"
    )
    causes = causes_of(found)
    for cause in causes[:MOST_CAUSES]:
        yield ""
        yield from _of_cause(cause, more.get(cause.first))
    if len(causes) > MOST_CAUSES:
        yield f"\nand {len(causes) - MOST_CAUSES} more"
    yield from (f"\nnot judged: {one}" for one in found.not_judged)


def _of_cause(cause: FailureCause, line: str | None) -> Iterator[str]:
    first = cause.first
    yield f"{cause.outcome}: {sentence_of(cause)}"
    yield f"    first: {first.setting.text}"
    yield f"    states: {_counted(cause.members)}"
    if line is not None:
        yield f"    {line}"


def sentence_of(cause: FailureCause) -> str:
    """Returns the sentence that says what went wrong."""
    if cause.outcome is Outcome.LOST_WORK:
        return (
            f"it resumed at step {cause.first.resumed}, although it had resumed from a newer "
            "checkpoint when it was killed earlier"
        )
    return cause.first.short


def _counted(members: Sequence[CommandTrial]) -> str:
    kinds = [one.setting.kind for one in members]
    return ", ".join(
        f"{kinds.count(kind)} by a {name}" for kind, name in _KINDS.items() if kind in kinds
    )
