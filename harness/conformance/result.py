"""The result of a case: the outcomes of its starts, compared with the violations that are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from harness.command.outcome import CommandTrial, Kind
from harness.command.table import FailureCause, causes_of, sentence_of
from harness.command.trying import CommandReport
from harness.conformance.case import ConformanceCase, KnownViolation
from harness.judge.outcome import Outcome


class _ResultModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Instances(_ResultModel):
    """The instances of one violation: how many by what, and the earliest and simplest one."""

    counts: Mapping[Kind, int]
    first: str


class NewViolation(_ResultModel):
    """Outcomes of one kind that no known violation covers."""

    outcome: Outcome
    sentence: str
    instances: Instances


class CaseResult(_ResultModel):
    """The findings of one run of a case.

    `refused` says why the command could not be tested; the rest is empty then.
    """

    versions: Mapping[str, str]
    day: str
    states: int = 0
    struck: Mapping[Kind, int] = Field(default_factory=dict)
    outcomes: Mapping[Outcome, int] = Field(default_factory=dict)
    known: Mapping[str, Instances] = Field(default_factory=dict)
    new: tuple[NewViolation, ...] = ()
    not_judged: tuple[str, ...] = ()
    refused: str = ""

    def vanished(self, case: ConformanceCase) -> tuple[str, ...]:
        """Returns the known violations that each run should show, and this one did not."""
        return tuple(one.id for one in case.violations if one.certain and one.id not in self.known)

    def is_expected(self, case: ConformanceCase) -> bool:
        """Whether it shows the known violations, and no other."""
        return not (self.refused or self.new or self.vanished(case))


def result_of(
    report: CommandReport, case: ConformanceCase, *, versions: Mapping[str, str], day: str
) -> CaseResult:
    """Compares a report with what is known of its case."""
    known: dict[str, list[CommandTrial]] = {}
    new: list[NewViolation] = []
    causes = causes_of(report)
    for cause in causes:
        unknown: list[CommandTrial] = []
        for trial in cause.members:
            found = _violation_of(trial, cause, case.violations)
            (unknown if found is None else known.setdefault(found.id, [])).append(trial)
        if unknown:
            rest = FailureCause(cause.outcome, tuple(unknown))
            instances = _instances(unknown)
            new.append(
                NewViolation(outcome=cause.outcome, sentence=sentence_of(rest), instances=instances)
            )
    return CaseResult(
        versions=versions,
        day=day,
        states=report.states,
        struck=Counter(one.setting.kind for one in report.tried),
        outcomes=_outcomes(report, causes),
        known={name: _instances(trials) for name, trials in known.items()},
        new=tuple(new),
        not_judged=report.not_judged,
    )


def _violation_of(
    trial: CommandTrial, cause: FailureCause, known: Sequence[KnownViolation]
) -> KnownViolation | None:
    alone = FailureCause(cause.outcome, (trial,))
    text = sentence_of(alone) if cause.outcome is Outcome.LOST_WORK else trial.text
    kind = trial.setting.kind
    return next((one for one in known if one.covers(cause.outcome, kind, text)), None)


def _instances(trials: Sequence[CommandTrial]) -> Instances:
    first = FailureCause(trials[0].outcome, tuple(trials)).first
    return Instances(counts=Counter(one.setting.kind for one in trials), first=first.setting.text)


def _outcomes(report: CommandReport, causes: Sequence[FailureCause]) -> Mapping[Outcome, int]:
    """Counts each start once: one that has lost work and is right otherwise as LOST_WORK."""
    lost = {one for cause in causes if cause.outcome is Outcome.LOST_WORK for one in cause.members}
    return Counter(
        Outcome.LOST_WORK if one.outcome is Outcome.PASS and one in lost else one.outcome
        for one in report.tried
    )


def store(result: CaseResult, path: Path) -> None:
    """Writes a result, for pages that are made later."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_result(path: Path) -> CaseResult | None:
    """Returns a stored result, if there is one."""
    if not path.exists():
        return None
    return CaseResult.model_validate_json(path.read_bytes())
