"""Says what is new while a command is tried: each kind of failure once, and how far it has come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from harness.command.outcome import CommandTrial, too_early
from harness.judge.outcome import Outcome
from harness.run.command.uninterrupted import Say

_EVERY_S = 5.0


class TrialProgress:
    """The trials until now; `say` gets a line for the first one, and then at most every 5 s."""

    def __init__(self, say: Say, now_s: Callable[[], float] = time.monotonic) -> None:
        self._say, self._now_s = say, now_s
        self._tried: list[CommandTrial] = []
        self._known: set[tuple[Outcome, str]] = set()
        self._next_s = 0.0
        self._done, self._of, self._what = 0, 0, ""

    def begin(self, what: str, of: int) -> None:
        """Note that trials of another sort follow, at most `of` of them."""
        self._done, self._of, self._what = 0, of, what
        self._next_s = self._now_s()

    def note(self, trial: CommandTrial) -> None:
        """Say what is new with this trial."""
        self._tried.append(trial)
        self._done += 1
        if trial.outcome is not Outcome.PASS and trial.signature not in self._known:
            self._say_failure(trial)
        if self._now_s() >= self._next_s:
            self._next_s = self._now_s() + _EVERY_S
            self._say(f"{self._done} of {self._of} {self._what} tried: {self._counted()}")

    def _say_failure(self, trial: CommandTrial) -> None:
        if trial.other_words and trial in too_early(self._tried):
            return
        self._known.add(trial.signature)
        self._say(f"{trial.outcome}: {trial.short} ({trial.setting.text})")

    def _counted(self) -> str:
        counts = Counter(str(one.outcome) for one in self._tried)
        passed = counts.pop(Outcome.PASS, 0)
        return ", ".join([f"{passed} passed", *(f"{many} {name}" for name, many in counts.items())])
