"""Checks a second job on the same directory: every rank is refused, with the expected error.

It must change nothing, except for names that it makes and removes again. The evidence is its own
records and its operations, whose rank numbers follow those of the first job. The first job is
judged as always.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.record import Finished, Raised, SaveReturned
from harness.faults.second_job import SecondJob
from harness.judge.changes import lasting
from harness.judge.event_logs import records
from harness.judge.refusals import other_words
from harness.plan.model import Plan


def is_asked(evidence: Evidence) -> bool:
    """Whether the scenario starts a second job."""
    return any(
        isinstance(one.fault, SecondJob) for run in evidence.plan.runs for one in run.strikes
    )


def not_refused(evidence: Evidence) -> Iterator[str]:
    """Yields second jobs that saved, changed something, or were refused with another error."""
    for number, (plan, run) in enumerate(zip(evidence.plan.runs, evidence.runs, strict=False)):
        for strike in plan.strikes:
            if isinstance(strike.fault, SecondJob) and not run.processes.hung:
                last = [records(event_log, Raised)[-1:] for event_log in run.second]
                refused = strike.fault.second_job.refused
                words = other_words([one[0] if one else None for one in last], refused)
                for one in (*_went_on(run, evidence.plan), *_changed(run), *words):
                    yield f"run {number}, second job: {one}"


def _went_on(run: RunEvidence, plan: Plan) -> Iterator[str]:
    for rank, event_log in enumerate(run.second):
        # In the background modes `save` returns before anything is decided.
        for record in () if plan.in_background else records(event_log, SaveReturned)[:1]:
            yield f"rank {rank} saved step {record.step}"
        for end in records(event_log, Finished):
            yield f"rank {rank} trained on to step {end.step}"


def _changed(run: RunEvidence) -> Iterator[str]:
    first = len(run.event_logs)
    made = lasting(one for one in run.operations if one.rank >= first)
    if made:
        yield f"made {len(made)} operations, the first {made[0].kind} {made[0].path}"
