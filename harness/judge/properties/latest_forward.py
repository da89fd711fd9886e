"""`latest_forward`: `latest` never goes back while a newer checkpoint counts.

The promise: `latest` never goes back to an older checkpoint while a newer one is there that the run
has resumed from or that was acknowledged in it; only an operator sets it back. A job that starts
while it is set back would lose what lies between, even if no start happens to fall there.

Evidence: the replayed tree after each operation that changed `latest`, the step from which the run
resumed, and the saves that were acknowledged to a rank before that operation. What an earlier
run saved does not count: a run that resumed from an older step by name goes on from there. A
checkpoint counts while it is whole and no operator has damaged it.

Does not apply where `latest` never names a checkpoint. Unknown when the replayed tree differs from
the disk. Not covered: how far back, and whether a start takes what `latest` names (`nothing_lost`).
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.evidence.evidence import Evidence, RunEvidence
from harness.judge.acknowledgements import acknowledged_at
from harness.judge.event_logs import resumed_steps
from harness.judge.history import History, Moment
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="latest_forward",
    sentence="`latest` never goes back to an older checkpoint while a newer one is there that the "
    "run has resumed from or that was acknowledged in it; only an operator sets it back.",
    outcome=Outcome.LOST_WORK,
    needs=(EvidenceKind.TREE, EvidenceKind.ACKNOWLEDGEMENTS),
    uses=(EvidenceKind.RESUMES,),
)


def judge(evidence: Evidence, history: History) -> Verdict:
    """Follow `latest` through each run."""
    if history.gaps:
        return PROMISE.unknown(*history.gaps)
    if not any(moment.live.latest.state == "checkpoint" for moment in history.moments):
        return PROMISE.does_not_apply("`latest` never named a checkpoint")
    return PROMISE.verdict(
        [
            finding
            for number, run in enumerate(evidence.runs)
            for finding in _set_back(
                history, number, _counting(run, background=evidence.plan.in_background)
            )
        ]
    )


def _counting(run: RunEvidence, *, background: bool) -> dict[int, int]:
    """The steps that count, each with the number of operations after which it does."""
    counting = acknowledged_at(run, background=background)
    return counting | {step: 0 for step in resumed_steps(run) if step is not None}


def _set_back(history: History, number: int, counting: dict[int, int]) -> Iterator[Finding]:
    """The operations of ranks that let `latest` name an older checkpoint than those that count."""
    named = history.starts(number).latest.name
    for moment in history.moments:
        if moment.run != number:
            continue
        before, named = named, moment.live.latest.name
        found = moment.live.found.get(named or "")
        if before == named or found is None or moment.operator or moment.by_cut:
            continue
        newest = max(_there(moment, counting), default=found.step)
        if found.step < newest:
            yield Finding(
                detail=f"run {number}, after operation {moment.index}: `latest` names {named}, "
                f"although step {newest} is there and was acknowledged or resumed from",
                operation=(number, moment.index),
            )


def _there(moment: Moment, counting: dict[int, int]) -> set[int]:
    """The steps that count by then and whose checkpoints are whole and undamaged."""
    whole = moment.live.whole().values()
    sound = {one.step for one in whole if one.identity not in moment.marks.damaged}
    return {step for step in sound if step in counting and counting[step] <= moment.index}
