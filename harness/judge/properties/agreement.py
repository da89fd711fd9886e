"""`agreement`: all ranks and pipeline stages load the same step, or all raise.

The promise: all ranks and all pipeline stages load the same step, or all raise the same error.

Evidence: the resume decision of every rank (step and source), exceptions before it, and the step of
each `save` by its ordinal. If a fault struck a run before every rank had decided, only the ranks
that had are judged; what a rank raises once a fault has ended a rank is no decision.

Unknown if no rank of any run got as far as a decision or an exception. Not covered: whether the
ranks' exceptions agree in content.
"""

from __future__ import annotations

from harness.evidence.evidence import Evidence
from harness.evidence.record import SaveBegan
from harness.judge.event_logs import (
    describe_step,
    first_end,
    raised_while_loading,
    ranks,
    records,
    resumed,
    was_struck,
)
from harness.judge.history import History
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="agreement",
    sentence="All ranks and all pipeline stages load the same step, or all raise the same error.",
    outcome=Outcome.SILENT_DIVERGENCE,
    needs=(EvidenceKind.RESUMES,),
    uses=(EvidenceKind.ACKNOWLEDGEMENTS,),
)


def judge(evidence: Evidence, _history: History) -> Verdict:
    """Compare the ranks' decisions in each run."""
    findings: list[Finding] = []
    decided = 0
    for number, run in enumerate(evidence.runs):
        decisions = [resumed(event_log) for event_log in run.event_logs]
        end = first_end(evidence, number)
        raised = [
            one if one is not None and one.index < end else None
            for one in map(raised_while_loading, run.event_logs)
        ]
        decided += sum(one is not None for one in (*decisions, *raised))
        findings += _different_choices(evidence, number)
        if any(raised) and not all(raised) and (any(decisions) or not was_struck(evidence, number)):
            failed = [rank for rank, one in enumerate(raised) if one is not None]
            others = [rank for rank, one in enumerate(raised) if one is None]
            detail = f"run {number}: {ranks(failed)} raised while loading, {ranks(others)} did not"
            findings.append(Finding(detail=detail, part="errors" if run.fired else None))
        findings += _different_saves(evidence, number)
    if not decided:
        return PROMISE.unknown("no rank of any run got as far as a decision")
    return PROMISE.verdict(findings)


def _different_choices(evidence: Evidence, number: int) -> list[Finding]:
    choices: dict[tuple[int | None, str | None], list[int]] = {}
    for rank, event_log in enumerate(evidence.runs[number].event_logs):
        decision = resumed(event_log)
        if decision is not None:
            choices.setdefault((decision.step, decision.source), []).append(rank)
    if len(choices) < 2:
        return []
    choice = "; ".join(
        f"{ranks(alike)}: {describe_step(step)} from {source or 'nowhere'}"
        for (step, source), alike in choices.items()
    )
    return [Finding(detail=f"run {number}: the ranks resumed differently: {choice}")]


def _different_saves(evidence: Evidence, number: int) -> list[Finding]:
    saves: dict[int, dict[int, list[int]]] = {}
    for rank, event_log in enumerate(evidence.runs[number].event_logs):
        for record in records(event_log, SaveBegan):
            saves.setdefault(record.ordinal, {}).setdefault(record.step, []).append(rank)
    findings: list[Finding] = []
    for ordinal, by_step in saves.items():
        if len(by_step) > 1:
            listed = "; ".join(f"{ranks(alike)}: step {step}" for step, alike in by_step.items())
            detail = f"run {number}: save {ordinal} is of different steps: {listed}"
            findings.append(Finding(detail=detail))
    return findings
