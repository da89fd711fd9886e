"""`no_code_on_load`: the contents of a checkpoint are read, and never run.

The promise: loading executes nothing that a checkpoint contains; neither `train_state.pt` nor DCP's
`.metadata` is unpickled without an allow-list.

Evidence: the names that hostile pickles create when an ordinary unpickler reads them. Such a
pickle, planted between two runs, means the same as the one before, so that nothing else shows that
it ran. A checkpointer that first notices the change never opens it, which is as good.

Does not apply if no hostile pickle was planted. Unknown if no rank got as far as a decision or an
exception afterwards; if the job cannot show either, the names alone are judged. Not covered: other
ways to run code than a call in a pickle, and files that no scenario makes hostile.
"""

from __future__ import annotations

from harness.evidence.evidence import Evidence
from harness.judge.event_logs import raised_while_loading, resumed
from harness.judge.history import History
from harness.judge.lacking import lacks
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="no_code_on_load",
    sentence="Loading executes nothing that a checkpoint contains.",
    outcome=Outcome.HARD_FAIL,
    uses=(EvidenceKind.RESUMES,),
)


def judge(evidence: Evidence, _history: History) -> Verdict:
    """Look for the marks of code that ran."""
    planted = {
        done.action_id: (number, done.paths)
        for number, at_rest in evidence.at_rest.items()
        for done in at_rest.done
        if done.action == "hostile" and done.problem is None
    }
    if not planted:
        return PROMISE.does_not_apply("no hostile file was planted")
    findings = [
        Finding(detail=f"{', '.join(paths)}, planted before run {number}, ran its code")
        for action, (number, paths) in planted.items()
        if action in evidence.executed
    ]
    last = max(number for number, _ in planted.values())
    event_logs = evidence.runs[last].event_logs if last < len(evidence.runs) else ()
    seen = any(resumed(one) or raised_while_loading(one) for one in event_logs)
    if not findings and not seen and not lacks(evidence, PROMISE.uses):
        return PROMISE.unknown(f"no rank of run {last} resumed or said why it did not")
    return PROMISE.verdict(findings, f"{len(planted)} hostile files were planted")
