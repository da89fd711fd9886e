"""`bounded`: no rank waits for ever.

The promise: no rank waits beyond the configured deadline for a rank that died, hung or failed to
write.

Evidence: the ranks that were still alive at the deadline of their run. When a rank dies the
launcher ends the others after a grace period, as torchrun does, so a survivor that would have
waited is only seen in runs whose ranks all live. Never unknown.
"""

from __future__ import annotations

from harness.evidence.evidence import Evidence
from harness.judge.history import History
from harness.judge.outcome import Outcome
from harness.judge.stories import ranks
from harness.judge.verdict import Finding, Promise, Verdict

PROMISE = Promise(
    name="bounded",
    sentence="No rank waits beyond the configured deadline for a rank that died, hung or failed to "
    "write.",
    outcome=Outcome.HANG,
)


def judge(evidence: Evidence, _history: History) -> Verdict:
    """Look for ranks that were alive at the deadline."""
    findings: list[Finding] = []
    for number, (run, plan) in enumerate(zip(evidence.runs, evidence.plan.runs, strict=False)):
        if run.processes.hung:
            last = (number, run.operations[-1].index) if run.operations else None
            who = ranks(run.processes.hung)
            told = f"run {number}: {who} still alive after {plan.deadline_s:g} s"
            findings.append(Finding(detail=told, operation=last))
    return PROMISE.verdict(findings)
