"""Determines which run another one continues."""

from __future__ import annotations

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.record import Resumed, Stepped


def starts_of(run: RunEvidence) -> set[int | None]:
    """Returns the steps from which the ranks of a run resumed; None is a fresh start."""
    records = (one for event_log in run.event_logs for one in event_log)
    return {one.step for one in records if isinstance(one, Resumed)}


def parent_of(evidence: Evidence, run: int) -> int | None:
    """Returns the newest earlier run that trained the step from which this one resumed."""
    found = starts_of(evidence.runs[run]) - {None}
    if not found:
        return None
    for earlier in reversed(range(run)):
        event_logs = evidence.runs[earlier].event_logs
        trained = (
            {one.step for one in event_log if isinstance(one, Stepped)} for event_log in event_logs
        )
        if event_logs and all(found <= steps for steps in trained):
            return earlier
    return None
