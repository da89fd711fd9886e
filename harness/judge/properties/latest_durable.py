"""`latest_durable`: at every instant, `latest` is absent or leads to a whole checkpoint.

The promise: at every instant, and after any crash or power cut, `latest` is absent or resolves to
a checkpoint that loads completely on every rank and stage.

Evidence: the replayed tree after every operation. The live view is what a kill at that instant
leaves. What an operator left between two runs is excused for as long as it stays. After a power cut
the link can be the one that was last synced or the one that was just made, so both are followed, to
what was synced below them. An absolute link is a violation: it breaks when the directory is moved.

Does not apply if the layout has no pointer. Unknown if the replayed tree differs from the disk. Not
covered: whether a complete checkpoint loads (a resume shows that).
"""

from __future__ import annotations

from harness.evidence.evidence import Evidence
from harness.judge.history import DirectoryState, History
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="latest_durable",
    sentence="At every instant, and after any crash or power cut, `latest` is absent or resolves "
    "to a checkpoint that loads completely on every rank and stage.",
    outcome=Outcome.HARD_FAIL,
    needs=(EvidenceKind.TREE,),
)


def judge(_evidence: Evidence, history: History) -> Verdict:
    """Follow `latest` at every instant, in all views."""
    if history.layout.pointer is None:
        return PROMISE.does_not_apply(f"the layout {history.layout.name} has no pointer")
    if history.gaps:
        return PROMISE.unknown(*history.gaps)
    findings: dict[str, Finding] = {}
    excused: set[str] = set()
    for moment in history.moments:
        views = (
            ("", moment.live),
            (" after a power cut", moment.durable),
            (" after a power cut that keeps the newest names", moment.journaled),
        )
        faults = {suffix: fault for suffix, state in views if (fault := _fault(state)) is not None}
        excused = set(faults.values()) if moment.operator else excused & set(faults.values())
        for suffix, fault in faults.items():
            if fault not in findings and fault not in excused:
                where = f"run {moment.run}, after operation {moment.index}{suffix}: "
                findings[fault] = Finding(
                    detail=where + fault,
                    operation=(moment.run, moment.index),
                    part="power_cuts" if suffix else None,
                )
    if all(moment.live.latest.state == "absent" for moment in history.moments) and not findings:
        text = f"`{history.layout.pointer}` was not there at any instant"
        return PROMISE.does_not_apply(text)
    return PROMISE.verdict(list(findings.values()), f"{len(history.moments)} instants looked at")


def _fault(state: DirectoryState) -> str | None:
    latest = state.latest
    if latest.state == "absent":
        return None
    if latest.state != "checkpoint" or latest.name is None:
        return latest.detail
    defects = state.latest_defects
    return f"`latest` names {latest.name}, where {defects[0]}" if defects else None
