"""`integrity`: damage that was done at rest never reaches the model.

The promise: a flipped bit, a truncated or missing file, a shard from another save are detected
before they reach the model; resume falls back to an undamaged checkpoint, or raises on every rank
an error that names what is damaged.

Evidence: the files of each checkpoint before and after an operator's actions between two runs. A
checkpoint is damaged if one of its files holds other bytes or is gone; it stays so until another
directory takes its name. No rank may resume from a damaged one. If ranks raise, all of them do, and
each error names a damaged checkpoint or one of its files.

How an implementation detects damage is up to it; one that detects nothing breaks the promise, even
if the damage happens to be harmless. The property `nothing_lost` decides which undamaged checkpoint
a resume must take, and that it must take one if there is one.

Does not apply if nothing was damaged. Unknown if the replayed tree differs from the disk, or if no
rank of a run with damage got as far as a decision or an exception. Not covered: damage while the
job runs until the next start, and what the ranks raise in a run in which a fault fired, or which
must be refused for settings of its own.
"""

from __future__ import annotations

from harness.evidence.evidence import Evidence
from harness.judge.event_logs import raised_while_loading, ranks, resumed
from harness.judge.history import History
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="integrity",
    sentence="A flipped bit, a truncated or missing file, a shard from another save are detected "
    "before they reach the model; resume falls back to an undamaged checkpoint, or raises on every "
    "rank an error that names what is damaged.",
    outcome=Outcome.SILENT_DIVERGENCE,
    needs=(EvidenceKind.TREE, EvidenceKind.RESUMES),
)


def judge(evidence: Evidence, history: History) -> Verdict:
    """Check what each start did with the damage that it found."""
    if history.gaps:
        return PROMISE.unknown(*history.gaps)
    loaded: list[Finding] = []
    unsaid: list[Finding] = []
    starts = 0
    for number in range(len(evidence.runs)):
        damaged = _damaged(history, number)
        if not damaged:
            continue
        decided = _loaded_damage(evidence, number, damaged)
        wrong_errors = _says_otherwise(evidence, number, damaged)
        if decided is None and wrong_errors is None:
            return PROMISE.unknown(f"run {number}: no rank got as far as a decision")
        starts += 1
        loaded += decided or []
        unsaid += wrong_errors or []
    if loaded:
        return PROMISE.violated([*loaded, *unsaid])
    if unsaid:
        return PROMISE.violated(unsaid, Outcome.HARD_FAIL)
    if not starts:
        return PROMISE.does_not_apply("nothing was damaged between runs")
    return PROMISE.holds(f"{starts} starts with damaged checkpoints looked at")


def _damaged(history: History, number: int) -> dict[str, str]:
    """Returns the damaged directories before a run by name, each with a path that was hit."""
    marks = history.marks[number].damaged
    tops = history.begins[number]
    return {name: marks[node] for name, (node, _) in tops.items() if node in marks}


def _loaded_damage(
    evidence: Evidence, number: int, damaged: dict[str, str]
) -> list[Finding] | None:
    """Returns ranks that resumed from something damaged; None if no rank resumed at all."""
    sources: dict[str | None, list[int]] = {}
    for rank, event_log in enumerate(evidence.runs[number].event_logs):
        decision = resumed(event_log)
        if decision is not None:
            sources.setdefault(decision.source, []).append(rank)
    if not sources:
        return None
    return [
        Finding(
            detail=f"run {number}: {ranks(alike)} resumed from {name}, in which {damaged[name]} "
            "had been changed or removed"
        )
        for name, alike in sources.items()
        if name in damaged
    ]


def _says_otherwise(
    evidence: Evidence, number: int, damaged: dict[str, str]
) -> list[Finding] | None:
    """Returns errors that name no damage, and ranks without an error; None if no rank raised."""
    raised = [raised_while_loading(event_log) for event_log in evidence.runs[number].event_logs]
    excused = bool(evidence.runs[number].fired) or _is_refused_for_its_settings(evidence, number)
    if not any(raised) or excused:
        return [] if excused else None
    findings: list[Finding] = []
    silent = [rank for rank, one in enumerate(raised) if one is None]
    if silent:
        findings.append(Finding(detail=f"run {number}: {ranks(silent)} did not raise, others did"))
    words = {*damaged, *damaged.values()}
    for rank, error in enumerate(raised):
        if error is not None and not any(word in error.message for word in words):
            detail = f"run {number}, rank {rank} raised {error.type}, which names no damage: "
            findings.append(Finding(detail=detail + error.message[:200]))
    return findings


def _is_refused_for_its_settings(evidence: Evidence, number: int) -> bool:
    """Whether the errors must concern another arrangement of ranks, or other freezing."""
    run = evidence.plan.runs[number]
    return run.refused is not None and (run.world is not None or run.freeze is not None)
