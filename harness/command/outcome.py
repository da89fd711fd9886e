"""Judges a start from a state from outside: by its end, its result, and its step lines."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.faults.registry import AnyFault
from harness.judge.outcome import Outcome
from harness.run.command.last_words import last_words
from harness.run.command.results import Read, Reference
from harness.run.command.starting import Ended
from harness.run.command.steps import StepLines
from harness.words import DIRECTORY_WORD

Kind = Literal["killed", "torn", "fault", "power"]
"""How much it takes: the first one is the least."""
_NUMBER = re.compile(r"\d+")
_LONGEST = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The origin of a start: a state, or the directory after a fault while the command lived."""

    kind: Kind
    place: int
    """The number of operations before it."""
    text: str
    fault: AnyFault | None = None
    """The fault, if the command lived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandTrial:
    """One start and its outcome. `resumed` is its first step, if it is known.

    `other_words` is whether it was started with the words of a resume, where these are others.
    """

    setting: Setting
    outcome: Outcome
    text: str
    resumed: int | None
    other_words: bool = False

    @property
    def signature(self) -> tuple[Outcome, str]:
        """Equal for trials that went wrong in the same way."""
        return self.outcome, _NUMBER.sub("N", self.text)

    @property
    def short(self) -> str:
        """The sentence, cut off where it is long."""
        return self.text if len(self.text) <= _LONGEST else f"{self.text[:_LONGEST]} ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """The uninterrupted run, which each start from a state is compared with."""

    reference: Reference
    steps: StepLines | None
    directory: Path
    """Where the command believes its directory to be; left out of sentences."""
    leaked: tuple[str, ...] = ()
    """The processes that outlive the uninterrupted run: then others may have some, too."""

    def judge(self, setting: Setting, ended: Ended, read: Read) -> CommandTrial:
        """Returns the outcome of a start, and the sentence that says why."""
        outcome, text = self._judged(ended, read)
        found = self.trial(setting, outcome, text)
        return replace(found, resumed=self.first(ended), other_words=ended.resumes)

    def trial(self, setting: Setting, outcome: Outcome, text: str) -> CommandTrial:
        """Returns a trial whose sentence names the directory as the command does."""
        named = text.replace(str(self.directory), DIRECTORY_WORD)
        return CommandTrial(setting=setting, outcome=outcome, text=named, resumed=None)

    def first(self, ended: Ended) -> int | None:
        """Returns the first step that a start made."""
        return None if self.steps is None else self.steps.first(ended.log())

    def _judged(self, ended: Ended, read: Read) -> tuple[Outcome, str]:
        if ended.hung:
            return Outcome.HANG, "it did not end"
        if ended.failed:
            return Outcome.HARD_FAIL, _last_words(ended)
        if ended.leaked and not self.leaked:
            return Outcome.LEAK, f"it left processes: {', '.join(ended.leaked)}"
        differences = self.reference.differences(ended.directory, read)
        if not differences:
            return Outcome.PASS, ""
        text = str(differences[0])
        other = None if self.steps is None else self.steps.first_difference(ended.log())
        text += "" if other is None else f"; the first other step line is `{other.text}`"
        return Outcome.SILENT_DIVERGENCE, text


def resumes_nothing(found: Sequence[CommandTrial], first: int, last: int) -> bool:
    """Whether every start after a kill made the `first` step again, also from the `last` place.

    There the uninterrupted run was over: a command that resumes makes no step, or a later one.
    """
    killed = [one for one in found if one.setting.kind == "killed"]
    ended = all(one.outcome in (Outcome.PASS, Outcome.SILENT_DIVERGENCE) for one in killed)
    again = all(one.resumed in (None, first) for one in killed)
    return ended and again and (last, first) in ((one.setting.place, one.resumed) for one in killed)


def too_early(found: Sequence[CommandTrial]) -> list[CommandTrial]:
    """Returns the failures of the words of a resume where there may be no checkpoint yet.

    There is one from the first kill on from which these words work. A power cut or a fault can take
    it as long as it is the newest: until they resume from a newer one.
    """
    others = [one for one in found if one.other_words]
    works = [one for one in others if one.setting.kind == "killed" and not _failed(one)]
    works.sort(key=lambda one: one.setting.place)
    first = works[0].setting.place if works else math.inf
    newer = (one.setting.place for one in works if one.resumed != works[0].resumed)
    replaced = next(newer, math.inf)
    # A write that is torn is not over, but a kill comes after its operation.
    begins = {"killed": first, "torn": first + 1, "power": replaced, "fault": replaced}
    return [one for one in others if _failed(one) and one.setting.place < begins[one.setting.kind]]


def _failed(trial: CommandTrial) -> bool:
    return trial.outcome is Outcome.HARD_FAIL


def newest_before(found: Sequence[CommandTrial], trial: CommandTrial) -> int | None:
    """Returns the newest step that a kill at an earlier instant could resume from."""
    steps = [
        one.resumed
        for one in found
        if one.setting.kind == "killed" and one.setting.place < trial.setting.place
    ]
    return max((one for one in steps if one is not None), default=None)


def roll_backs(found: Sequence[CommandTrial]) -> list[CommandTrial]:
    """Returns those that resumed from an older step than one from an earlier instant did.

    What a kill after fewer operations could resume from must still be there after more. Only states
    of kills are compared: a torn write or a power cut may take what was not finished.
    """
    newest: int | None = None
    back = []
    killed = [one for one in found if one.setting.kind == "killed" and one.resumed is not None]
    for one in sorted(killed, key=lambda one: one.setting.place):
        step = one.resumed or 0
        if newest is not None and step < newest:
            back.append(one)
        newest = max(newest or 0, step)
    return back


def _last_words(ended: Ended) -> str:
    """Returns the last line of the rank that failed first, or how it ended."""
    rank = ended.first_failed
    return last_words(ended.log(rank)) or f"rank {rank} ended with {ended.statuses[rank]}"
