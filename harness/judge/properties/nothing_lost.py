"""`nothing_lost`: resume starts from the newest checkpoint acknowledged to the job, or a newer one.

The promise: after a crash, resume starts from the newest checkpoint that was acknowledged to the
job as durable, or a newer one. The acknowledgement is true on every rank: the checkpoint is there
when it comes to the first of them.
A durable checkpoint becomes visible at once (background), not at the next save.

Evidence: the acknowledgements to any rank in earlier runs (`save` returned in synchronous mode;
in the background modes the saves begun before `wait` or `flush_pending_save` returned), and the
step that each later run resumed from. A run with `load_step` starts a new lineage, in which earlier
acknowledgements count up to that step; so does a run before which an operator repointed `latest`.
Checkpoints that an operator damaged or removed, between two runs or in mid-run, were lost by the
operator: of the acknowledged ones, only those that are still there and undamaged count. A run that
must be refused resumes from nothing. If the scenario says which step it expects, any other is a
violation, older or newer; None in a list of steps means a fresh start.

Promptness: in the background modes, a save whose flush had ended more than two seconds before the
next save began must have been published by then; on a loaded machine the limit grows with the
factor by which the run was slowed. Once a fault has fired, saves are left out: a stalled disk is a
reason to wait. Records carry no time, so the first operation after the beginning of the next save
supplies it; training alone makes no operation.

Does not apply to a single run that never saved. Unknown if a later run ended before any rank had
decided where to resume, and no rank said why; a run in which a fault fired before that is passed
over, and so is one that raised where nothing had been saved: nothing could be lost.
Not covered: how much work a lost checkpoint held.
"""

from __future__ import annotations

from itertools import pairwise

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.operation import Operation
from harness.evidence.record import Raised, SaveBegan
from harness.faults.actions import SetLatest
from harness.judge.acknowledgements import acknowledged_steps, acknowledged_to
from harness.judge.event_logs import (
    describe_step,
    is_cut_short,
    raised_while_loading,
    ranks,
    records,
    resumed_steps,
)
from harness.judge.history import DirectoryState, History, Moment
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="nothing_lost",
    sentence="After a crash, resume starts from the newest checkpoint that was acknowledged to "
    "the job as durable, or a newer one. A durable checkpoint becomes visible at once, not at the "
    "next save.",
    outcome=Outcome.LOST_WORK,
    needs=(EvidenceKind.TREE, EvidenceKind.RESUMES, EvidenceKind.ACKNOWLEDGEMENTS),
)

# The largest delay between the end of a flush and its publication that a slow disk explains.
_PROMPT_S = 2.0


def judge(evidence: Evidence, history: History) -> Verdict:
    """Compare each resume with the acknowledgements, and look for late publications."""
    background = evidence.plan.in_background
    saves = any(
        records(event_log, SaveBegan) for run in evidence.runs for event_log in run.event_logs
    )
    if len(evidence.runs) < 2 and not saves:
        return PROMISE.does_not_apply("one run that never saved: nothing could be lost")
    findings: list[Finding] = []
    unknown: list[str] = []
    acknowledged: set[int] = set()
    for number, run in enumerate(evidence.runs):
        acknowledged = _still_acknowledged(acknowledged, evidence, history, number)
        if number and evidence.plan.runs[number].refused is None:
            problems, questions = _resume(evidence, history, number, acknowledged)
            findings += problems
            unknown += questions
        late = _late(number, run) if background else []
        findings += [*late, *_untrue(number, run, history, background=background)]
        acknowledged |= acknowledged_steps(run, background=background)
    if findings:
        return PROMISE.violated(findings)
    return PROMISE.unknown(*unknown) if unknown else PROMISE.holds()


def _still_acknowledged(
    acknowledged: set[int], evidence: Evidence, history: History, number: int
) -> set[int]:
    """Returns the steps that the job can rely on at a start: an operator can choose one."""
    plan = evidence.plan.runs[number]
    chosen = plan.load_step
    acknowledged = acknowledged - _taken_late(history, number - 1)
    if number in evidence.at_rest:
        sound = {one.step for one in history.sound(number).values()}
        acknowledged = acknowledged & sound
        pointed = [
            action.action.latest.step
            for action in plan.before
            if isinstance(action.action, SetLatest)
        ]
        if chosen is None and pointed and pointed[-1] in sound:
            chosen = pointed[-1]
    elif chosen is None:
        chosen = _pointed_late(evidence, history, number - 1)
    if plan.refused is not None:
        return acknowledged
    return (
        acknowledged
        if chosen is None
        else {step for step in acknowledged if step <= chosen} | {chosen}
    )


def _taken_late(history: History, number: int) -> set[int]:
    """Returns the steps whose checkpoints an operator damaged or removed for good in mid-run."""
    taken: dict[int, set[int]] = {}
    for before, after in _late_operators(history, number):
        for one in before.live.whole().values():
            if one.step in _taken(before.live, after):
                taken.setdefault(one.step, set()).add(one.identity)
    there = {one.identity for one in history.ends[number].whole().values()} if taken else set()
    damaged = set(history.left.damaged)
    return {step for step, identities in taken.items() if not identities & (there - damaged)}


def _was_taken_durable(history: History, number: int, step: int, *, until: int) -> bool:
    """Whether an operator took what was already durable, within so many operations of a run."""
    return any(
        step in _taken(before.durable, after)
        for before, after in _late_operators(history, number)
        if after.index < until
    )


def _late_operators(history: History, number: int) -> list[tuple[Moment, Moment]]:
    """Returns the moments before and after each action of an operator in mid-run."""
    return [
        (before, after)
        for before, after in pairwise(history.moments)
        if after.run == number and after.operator and after.index >= 0
    ]


def _taken(before: DirectoryState, after: Moment) -> set[int]:
    """Returns the steps whose checkpoints were whole, and which an operator damaged or removed."""
    left = {one.identity for one in after.live.whole().values()} - set(after.marks.damaged)
    return {one.step for one in before.whole().values() if one.identity not in left}


def _pointed_late(evidence: Evidence, history: History, number: int) -> int | None:
    """Returns the step at which an operator pointed `latest` in mid-run, if no save has since."""
    states = [one for one in history.moments if one.run == number]
    changes = [now for old, now in pairwise(states) if old.live.latest.name != now.live.latest.name]
    if not changes or not changes[-1].operator:
        return None
    actions = [one.fault.action for one in evidence.plan.runs[number].strikes]
    steps = [one.latest.step for one in actions if isinstance(one, SetLatest)]
    return steps[-1] if steps else None


def _resume(
    evidence: Evidence, history: History, number: int, acknowledged: set[int]
) -> tuple[list[Finding], list[str]]:
    """Returns findings on the resume of one run, and questions that cannot be answered."""
    run = evidence.runs[number]
    decisions = set(resumed_steps(run))
    if not decisions and (run.fired or is_cut_short(evidence, number)):
        return [], []  # a fault struck before the decision, so the survivors' errors are allowed
    if not decisions:
        raised = [one for one in map(raised_while_loading, run.event_logs) if one is not None]
        if raised and not acknowledged and not history.starts(number).found:
            return [], []  # there was nothing to resume from
        if raised:
            detail = f"run {number} did not resume: a rank raised {raised[0].type}"
            # Nothing was given back to the job.
            return [Finding(detail=detail, outcome=Outcome.HARD_FAIL)], []
        return [], [f"run {number}: no rank decided where to resume, and none raised"]
    found: list[Finding] = []
    newest = max(acknowledged, default=None)
    for step in sorted(decisions, key=lambda one: -1 if one is None else one):
        found += _against_acknowledged(number, step, newest, history)
        found += _against_expected(evidence, number, step)
    return found, []


def _against_acknowledged(
    number: int, step: int | None, newest: int | None, history: History
) -> list[Finding]:
    if newest is not None and (step is None or step < newest):
        detail = (
            f"run {number} resumed from {describe_step(step)}, although step {newest} had been "
            "acknowledged"
        )
        return [Finding(detail=detail)]
    marks = history.marks[number].damaged
    found = history.starts(number).found.items()
    committed = [name for name, one in found if not one.defects or one.identity in marks]
    if step is None and committed:
        names = ", ".join(sorted(committed))
        detail = f"run {number} started afresh, although {names} was there"
        return [Finding(detail=detail)]
    return []


def _against_expected(evidence: Evidence, number: int, step: int | None) -> list[Finding]:
    expected = evidence.plan.expect.resumed_from_step
    if expected is None:
        return []
    if isinstance(expected, tuple):
        if number > len(expected):
            return []
        wanted = expected[number - 1]
    elif number == len(evidence.plan.runs) - 1:
        wanted = expected
    else:
        return []
    if step == wanted:
        return []
    is_older = wanted is not None and (step is None or step < wanted)
    word = "older" if is_older else "newer"
    detail = (
        f"run {number} resumed from {describe_step(step)}, "
        f"{word} than the expected {describe_step(wanted)}"
    )
    if is_older:
        return [Finding(detail=detail, part=_expects(evidence, number))]
    # From a newer step no work is lost: it goes on with another state than the job asked for.
    return [Finding(detail=detail, outcome=Outcome.SILENT_DIVERGENCE)]


def _expects(evidence: Evidence, number: int) -> str | None:
    """Returns the part of a promise on which an expected step rests, if earlier saves failed."""
    earlier = evidence.runs[:number]
    if any(run.fired and run.processes.hung for run in earlier):
        return "deadlines"
    failed = (
        record.during in ("save", "wait", "flush_pending_save")
        for run in earlier
        for event_log in run.event_logs
        for record in records(event_log, Raised)
    )
    return "later_saves" if any(failed) else None


def _untrue(number: int, run: RunEvidence, history: History, *, background: bool) -> list[Finding]:
    """Returns checkpoints that were acknowledged to a rank, and that were not there."""
    findings: list[Finding] = []
    for step, places in acknowledged_to(run, background=background).items():
        early = {
            rank: place
            for rank, place in places.items()
            if not _is_there(step, history.durable_at(number, place))
            # The checkpointer is not blamed for what an operator took before the acknowledgement.
            and not _was_taken_durable(history, number, step, until=place)
        }
        if early:
            place = min(early.values())
            whom = "every rank" if len(early) == len(run.event_logs) else ranks(sorted(early))
            is_live = all(_is_there(step, history.live_at(number, one)) for one in early.values())
            findings.append(
                Finding(
                    detail=f"run {number}: step {step} was acknowledged to {whom}, and a "
                    "power cut would have left no whole checkpoint of it or of a later step",
                    operation=(number, place - 1) if place else None,
                    part="power_cuts" if is_live else None,
                )
            )
    return findings


def _is_there(step: int, state: DirectoryState) -> bool:
    """Whether a step, or a later one, is whole in a state of the directory."""
    return any(one.step >= step for one in state.whole().values())


def _late(number: int, run: RunEvidence) -> list[Finding]:
    """Returns saves that became visible only when the next one began."""
    begins: dict[int, int] = {}
    for event_log in run.event_logs:
        for record in records(event_log, SaveBegan):
            begins[record.ordinal] = min(record.index, begins.get(record.ordinal, record.index))
    findings: list[Finding] = []
    for ordinal, begin in begins.items():
        operations = [one for one in run.operations if one.save == ordinal]
        following = begins.get(ordinal + 1)
        if following is None or following < begin:
            continue
        if any(one.index <= following for one in run.fired):
            continue
        finding = _late_by(number, run, operations, following)
        if finding is not None:
            findings.append(finding)
    return findings


def _late_by(
    number: int, run: RunEvidence, operations: list[Operation], following: int
) -> Finding | None:
    flushes = [one for one in operations if one.phase == "flush" and one.kind in ("write", "fsync")]
    later = [one for one in run.operations if one.index >= following]
    published = any(
        one.phase == "publish" and one.error == 0 and one.index < following for one in operations
    )
    if not flushes or not later or published or flushes[-1].index >= following:
        return None
    waited = later[0].time_s - flushes[-1].time_s
    if waited <= _PROMPT_S * run.processes.slowed:
        return None
    return Finding(
        detail=f"run {number}: save {operations[0].save} was flushed at operation "
        f"{flushes[-1].index} and not yet visible {waited:.1f} s later, when the next save began",
        operation=(number, flushes[-1].index),
        part="prompt",
    )
