"""The summary of an exploration: points, equal ones, struck ones, failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.judge.outcome import Outcome
from harness.search.explore.job import Explored
from harness.search.explore.points import ChosenPoints
from harness.search.explore.strike import StrikeOutcome

_MOST_REPORTS = 3
"""Full reports; for further failures the replay command is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Some or all strikes of an exploration. `part` reads like `part 2 of 3`, empty for all."""

    job: Explored
    choice: ChosenPoints
    struck: tuple[StrikeOutcome, ...]
    part: str = ""

    @property
    def red(self) -> tuple[StrikeOutcome, ...]:
        """The strikes that break something which the baseline does not, or prove nothing."""
        proofs = ((one, one.proof) for one in self.struck if one.proof.outcome != "PASS")
        known = {*self.choice.broken}
        return tuple(one for one, proof in proofs if not proof.broken or {*proof.broken} - known)

    @property
    def broken(self) -> tuple[str, ...]:
        """The names that the baseline and the strikes break, each once."""
        struck = [name for one in self.red for name in one.proof.broken]
        return tuple(dict.fromkeys((*self.choice.broken, *struck)))

    @property
    def outcome(self) -> Outcome:
        """The outcome of the first red strike, else of the baseline; INVALID if nothing fired."""
        if self.is_green:
            return Outcome.PASS
        without = self.choice.outcome if self.choice.broken else Outcome.INVALID
        return next((one.proof.outcome for one in self.red), without)

    @property
    def is_green(self) -> bool:
        """Whether something was struck, and all of it passed, as the baseline did."""
        return any(one.fired for one in self.struck) and not self.red and not self.choice.broken


def headline(summary: Summary) -> str:
    """Formats one line of counts."""
    choice, explore = summary.choice, summary.job.explore
    equal = choice.points - choice.distinct
    how = "exhaustive" if choice.is_exhaustive else f"sampled by seed {explore.seed}"
    fired = sum(one.fired for one in summary.struck)
    outcomes = Counter(str(one.proof.outcome) for one in summary.struck)
    counts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    words = [
        f"{choice.points} points at {choice.operations} operations",
        f"{equal} judged as equal to another",
        f"{len(choice.chosen)} of {choice.distinct} chosen ({how})",
        f"{fired} struck" + (f" in {summary.part}" if summary.part else ""),
    ]
    if clean := len(summary.struck) - fired:
        words.append(f"{clean} runs ended before their strike")
    return f"{', '.join(words)}: {counts or 'nothing'}"


def describe_summary(summary: Summary) -> str:
    """Formats the headline, and what is red."""
    lines = [f"{summary.job.scenario.name}", headline(summary)]
    if summary.choice.broken:
        lines.append(
            f"without a strike it is {summary.choice.outcome} "
            f"({', '.join(summary.choice.broken)}); only strikes that break something else are "
            "reported"
        )
    return "\n".join([*lines, *_reds(summary)])


def _reds(summary: Summary) -> Iterator[str]:
    for number, one in enumerate(summary.red):
        if number < _MOST_REPORTS:
            yield f"\n--- {one.name}\n{one.proof.text}"
        else:
            yield f"\n--- {one.name}\n{one.proof.outcome}, replay: {one.proof.replay}"
