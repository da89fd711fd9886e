"""The result of a case: the outcomes of its starts, compared with the violations that are known.

A run is stored with all that it showed, so that it can be compared again when more is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.command.outcome import CommandTrial, Kind
from harness.command.table import FailureCause, causes_of, sentence_of
from harness.command.trying import CommandReport
from harness.conformance.case import ConformanceCase, KnownViolation
from harness.judge.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Instances:
    """The instances of one violation: how many by what, and the earliest and simplest one."""

    counts: Mapping[Kind, int]
    first: str


@dataclass(frozen=True, slots=True)
class NewViolation:
    """Outcomes of one kind that no known violation covers."""

    outcome: Outcome
    sentence: str
    instances: Instances


class CaseRun(BaseModel):
    """One run of a case: its report, or why the command could not be tested."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: Mapping[str, str]
    day: str
    report: CommandReport | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """The findings of one run of a case."""

    run: CaseRun
    states: int = 0
    struck: Mapping[Kind, int] = field(default_factory=dict)
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    known: Mapping[str, Instances] = field(default_factory=dict)
    new: tuple[NewViolation, ...] = ()
    not_judged: tuple[str, ...] = ()

    def vanished(self, case: ConformanceCase) -> tuple[str, ...]:
        """Returns the known violations that each run should show, and this one did not."""
        return tuple(one.id for one in case.violations if one.certain and one.id not in self.known)

    def is_expected(self, case: ConformanceCase) -> bool:
        """Whether it shows the known violations, and no other."""
        return not (self.run.refused or self.new or self.vanished(case))


def result_of(run: CaseRun, case: ConformanceCase) -> CaseResult:
    """Compares a run with what is known of its case."""
    report = run.report
    if report is None:
        return CaseResult(run=run)
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
            new.append(NewViolation(cause.outcome, sentence_of(rest), _instances(unknown)))
    return CaseResult(
        run=run,
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


def store(run: CaseRun, path: Path) -> None:
    """Writes a run."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_run(path: Path) -> CaseRun | None:
    """Returns a stored run, if there is one."""
    return CaseRun.model_validate_json(path.read_bytes()) if path.exists() else None
