"""`whole_or_absent`: a directory named `step_N` is a committed checkpoint.

The promise: a directory named `step_N` is a committed checkpoint. Torn saves and half-deleted
checkpoints never carry that name, never load, never count for retention.

Evidence: the replayed tree after every operation, live and as a power cut leaves it. A directory
without defects must also stay as it is: its bytes change only when another directory takes its
place. What an operator tore or changed between two runs is excused for as long as the same
directory stays.

Unknown if the replayed tree differs from the disk. Not covered: bytes that an operator changed
between two runs (`integrity`), and states that a power cut leaves by keeping some unsynced changes
and not others (`harness.crash` explores these).
"""

from __future__ import annotations

from harness.evidence.evidence import Evidence
from harness.judge.history import DirectoryState, FoundCheckpoint, History
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="whole_or_absent",
    sentence="A directory named `step_N` is a committed checkpoint. Torn saves and half-deleted "
    "checkpoints never carry that name, never load, never count for retention.",
    outcome=Outcome.HARD_FAIL,
    needs=(EvidenceKind.TREE,),
)


def judge(_evidence: Evidence, history: History) -> Verdict:
    """Look into every directory with a checkpoint's name, at every instant."""
    if history.gaps:
        return PROMISE.unknown(*history.gaps)
    findings: list[Finding] = []
    whole: dict[str, FoundCheckpoint] = {}
    known: set[str] = set()
    excused: set[str] = set()
    for moment in history.moments:
        faults = [
            *_torn(moment.live),
            *_torn(moment.durable, " after a power cut"),
            *_torn(moment.journaled, " after a power cut that keeps the newest names"),
            *([] if moment.operator else _changed(whole, moment.live)),
        ]
        now = {fault for fault, _, _ in faults}
        excused = now if moment.operator else excused & now
        for fault, detail, part in faults:
            if fault not in known and fault not in excused:
                where = f"run {moment.run}, after operation {moment.index}: "
                findings.append(
                    Finding(detail=where + detail, operation=(moment.run, moment.index), part=part)
                )
        known = now
        whole = moment.live.whole()
    if not any(moment.live.found for moment in history.moments) and not findings:
        return PROMISE.does_not_apply("no checkpoint was there at any instant")
    return PROMISE.verdict(findings, f"{len(history.moments)} instants looked at")


Fault = tuple[str, str, str | None]
"""An id that stays the same while the fault lasts, the text, and the part of the promise."""


def _torn(state: DirectoryState, suffix: str = "") -> list[Fault]:
    """Returns the tears by directory and view; one that stays is the same in later moments."""
    return [
        (
            f"torn {name} ({one.identity}){suffix}",
            f"{name} carries a checkpoint's name{suffix}, but {one.defects[0]}",
            "power_cuts" if suffix else _unless_latest(state, name),
        )
        for name, one in state.found.items()
        if one.defects
    ]


def _unless_latest(state: DirectoryState, name: str) -> str | None:
    """Returns the part of the promise, without which only what `latest` names must be whole."""
    return None if state.latest.name == name else "every_instant"


def _changed(before: dict[str, FoundCheckpoint], state: DirectoryState) -> list[Fault]:
    faults: list[Fault] = []
    for name, old in before.items():
        new = state.found.get(name)
        if new is None or new.defects or new.identity != old.identity:
            continue
        if new.version != old.version:
            detail = f"{name} was whole and is changed in place"
            faults.append((f"changed {name}", detail, _unless_latest(state, name)))
    return faults
