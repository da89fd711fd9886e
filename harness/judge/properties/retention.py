"""`retention`: `keep_last_n` keeps neither fewer nor more checkpoints than it says.

The promise: `keep_last_n` counts committed checkpoints of this run only; the `latest` target, the
in-flight save and milestones are never deleted; an interrupted deletion is finished by the next
run; nothing else is left behind.

Evidence: the replayed tree at every instant. From the first commit on there are never fewer whole
checkpoints of the run's lineage than `keep_last_n`, or than were ever committed in it; the target
of `latest` and the lineage's milestones of `dyn_ckpt_window` do not vanish. If the last run saved
and ended in order, the checkpoints of its lineage, without milestones, are at most `keep_last_n`. A
run with `load_step`, or before which an operator changed the directory, starts a lineage: newer
checkpoints from before it are an abandoned branch, which neither counts nor has to be kept.
`keep_last_n` of zero or less keeps all. The checkpointer is not blamed for what an operator damaged
or removed, nor for still counting it. Foreign names that an operator created are still there after
every run, with everything below them. A save that fails after the rename can take it back: a
checkpoint was never committed if it gets its earlier name back from the same save, or from one that
was not acknowledged, while `latest` does not name it. The property `nothing_lost` covers the losses
of a power cut: retention starts counting anew after it.

Does not apply if nothing is saved. Unknown if the replayed tree differs from the disk. Not covered:
leftovers that are no checkpoints (`clean`), and too many checkpoints before the last run has ended
in order.
"""

from __future__ import annotations

from harness.evidence.evidence import Evidence
from harness.evidence.operation import Operation
from harness.judge.acknowledgements import acknowledged_steps
from harness.judge.event_logs import is_orderly, resumed_steps
from harness.judge.history import FoundCheckpoint, History, Moment
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.layouts.base import Layout
from harness.scenario.schema import Checkpoint
from harness.words import EvidenceKind

PROMISE = Promise(
    name="retention",
    sentence="`keep_last_n` counts committed checkpoints of this run only; the `latest` target, "
    "the in-flight save and milestones are never deleted; an interrupted deletion is finished by "
    "the next run; nothing else is left behind.",
    outcome=Outcome.LEAK,
    needs=(EvidenceKind.TREE,),
    uses=(EvidenceKind.RESUMES, EvidenceKind.ACKNOWLEDGEMENTS, EvidenceKind.ENDS),
)


def judge(evidence: Evidence, history: History) -> Verdict:
    """Count checkpoints at every instant, and at the end."""
    checkpoint = evidence.plan.checkpoint
    if evidence.plan.command is not None:
        return PROMISE.does_not_apply("how many a command keeps is not known")
    if checkpoint is None:
        return PROMISE.does_not_apply("the scenario saves nothing")
    if history.gaps:
        return PROMISE.unknown(*history.gaps)
    lost = [*_lost(checkpoint, evidence, history), *_taken(history)]
    if lost:
        return PROMISE.violated(lost, Outcome.LOST_WORK)
    return PROMISE.verdict(_left(checkpoint, evidence, history))


def is_milestone(checkpoint: Checkpoint, step: int) -> bool:
    """Whether retention leaves the checkpoint of `step` alone."""
    window = checkpoint.dyn_ckpt_window
    if window is None or not window.start <= step <= window.stop:
        return False
    distance = step - window.start
    return distance & (distance - 1) == 0


def _withdrawals(evidence: Evidence, layout: Layout) -> dict[tuple[int, int], str]:
    """Returns, by run and operation, the checkpoints whose save gives back their earlier name."""
    found = {}
    background = evidence.plan.in_background
    for number, run in enumerate(evidence.runs):
        acknowledged = acknowledged_steps(run, background=background)
        named: dict[str, Operation] = {}
        for one in run.operations:
            if one.error or one.kind != "rename" or one.target is None:
                continue
            first = named.pop(one.path, None)
            back = first is not None and first.path == one.target
            # A save that resets the pointer counts as an older one: the step was not acknowledged.
            if (
                first is not None
                and back
                and (first.save == one.save or layout.step_of(one.path) not in acknowledged)
            ):
                found[number, one.index] = one.path
            named[one.target] = one
    return found


def _lost(checkpoint: Checkpoint, evidence: Evidence, history: History) -> list[Finding]:
    """Returns checkpoints that are gone too early."""
    findings: list[Finding] = []
    withdrawals = _withdrawals(evidence, history.layout)
    abandoned = _abandoned(evidence, history)
    committed: dict[str, int] = {}
    short: tuple[int, int] | None = None
    before: Moment | None = None
    for moment in history.moments:
        branch = abandoned[moment.run]
        if before is not None and branch != abandoned[before.run]:
            committed = _own(before, branch)
        if moment.operator or moment.by_cut:
            committed = _own(moment, branch)
            before = moment
            continue
        problems: list[str] = []
        withdrawn = withdrawals.get((moment.run, moment.index))
        whole = moment.live.whole()
        for name, found in {} if before is None else before.live.whole().items():
            if name == withdrawn and before is not None and before.live.latest.name != name:
                committed.pop(name, None)
            elif name not in whole:
                reason = _needed(checkpoint, name, found, before, branch)
                problems += [f"{name} {_fate(name, before, moment)}, {reason}"] if reason else []
        committed |= _own(moment, branch)
        least, count = _least(checkpoint, committed), _count(checkpoint, moment, branch)
        was_short, short = short, (count, least) if count < least else None
        if short not in (None, was_short):
            problems.append(f"{count} whole checkpoints are left, {least} have to be kept")
        here = (moment.run, moment.index)
        where = f"run {moment.run}, after operation {moment.index}: "
        findings += [Finding(detail=where + one, operation=here) for one in problems]
        before = moment
    return findings


def _count(checkpoint: Checkpoint, moment: Moment, branch: frozenset[int]) -> int:
    """Returns how many checkpoints there are that count; what an operator damaged still may."""
    damaged = moment.marks.damaged
    counted = [
        one
        for one in moment.live.found.values()
        if (not one.defects or one.identity in damaged) and one.identity not in branch
        if not is_milestone(checkpoint, one.step)
    ]
    return len(counted) + moment.live.keeps_one_set_aside()


def _own(moment: Moment, branch: frozenset[int]) -> dict[str, int]:
    """Returns the undamaged checkpoints, and their steps, that are not of an abandoned branch."""
    without = branch | moment.marks.damaged.keys()
    found = moment.live.whole().items()
    return {name: one.step for name, one in found if one.identity not in without}


def _abandoned(evidence: Evidence, history: History) -> list[frozenset[int]]:
    """Returns by run the directories of branches that have been abandoned until it trains.

    A run that resumes from such a branch takes it up again.
    """
    found: list[frozenset[int]] = []
    branch: frozenset[int] = frozenset()
    for number, run in enumerate(evidence.runs):
        kept = max((step or 0 for step in resumed_steps(run)), default=None)
        if kept is not None:
            there = history.starts(number).found.values()
            if any(one.step == kept and one.identity in branch for one in there):
                branch -= {one.identity for one in there if one.step <= kept}
            if _starts_lineage(evidence, number):
                newer = {one.identity for one in there if one.step > kept}
                # One that was damaged is passed over, and not abandoned.
                branch |= newer - history.marks[number].damaged.keys()
        found.append(branch)
    return found


def _starts_lineage(evidence: Evidence, number: int) -> bool:
    """Whether somebody chose where the run starts: the scenario, or an operator before it."""
    plan = evidence.plan.runs[number]
    chosen = plan.load_step is not None or number in evidence.at_rest
    return chosen and plan.refused is None


def _fate(name: str, before: Moment | None, now: Moment) -> str:
    """Describes how a checkpoint that was whole is whole no more."""
    found = now.live.found.get(name)
    if found is None:
        return "is gone"
    is_same = before is not None and before.live.found[name].identity == found.identity
    verb = "is no longer whole" if is_same else "is replaced by what is not whole"
    return f"{verb} ({found.defects[0]})"


def _taken(history: History) -> list[Finding]:
    """Returns foreign names that are gone or changed after a run."""
    findings: list[Finding] = []
    for number, (marks, tops) in enumerate(zip(history.marks, history.tops, strict=True)):
        left = dict(tops.values())
        for node, (name, version) in marks.foreign.items():
            if left.get(node) != version:
                verb = "changed" if node in left else "gone"
                detail = f"run {number}: {name}, which is not the checkpointer's, is {verb}"
                findings.append(Finding(detail=detail))
    return findings


def _needed(
    checkpoint: Checkpoint,
    name: str,
    found: FoundCheckpoint,
    before: Moment | None,
    branch: frozenset[int],
) -> str | None:
    if before is not None and before.live.latest.name == name:
        return "which `latest` named"
    is_own = found.identity not in branch
    return "which is a milestone" if is_own and is_milestone(checkpoint, found.step) else None


def _least(checkpoint: Checkpoint, committed: dict[str, int]) -> int:
    counted = sum(not is_milestone(checkpoint, step) for step in committed.values())
    return min(checkpoint.keep_last_n, counted) if checkpoint.keep_last_n > 0 else counted


def _left(checkpoint: Checkpoint, evidence: Evidence, history: History) -> list[Finding]:
    """Returns checkpoints that should be gone when the last run has ended in order."""
    if checkpoint.keep_last_n <= 0 or not is_orderly(evidence.runs[-1]):
        return []
    if not _has_saved(history, len(evidence.runs) - 1):
        return []  # a save deletes what it makes superfluous, and there was none
    lineage = _lineage(evidence, history)
    damaged = history.left.damaged
    end = history.ends[-1].whole()
    counted = [
        name
        for name, found in end.items()
        if name in lineage and not is_milestone(checkpoint, found.step)
        if found.identity not in damaged
    ]
    if len(counted) <= checkpoint.keep_last_n:
        return []
    names = ", ".join(sorted(counted, key=lambda name: end[name].step))
    keep = checkpoint.keep_last_n
    return [Finding(detail=f"{names} are left at the end, keep_last_n is {keep}")]


def _has_saved(history: History, number: int) -> bool:
    """Whether a checkpoint appeared in a run."""
    seen = {one.identity for one in history.starts(number).found.values()}
    moments = (one.live for one in history.moments if one.run == number and not one.operator)
    return any(one.identity not in seen for live in moments for one in live.whole().values())


def _lineage(evidence: Evidence, history: History) -> set[str]:
    """Returns the checkpoints that the last run's training descends from, and its own."""
    lineage: dict[str, int] = {}
    for number, run in enumerate(evidence.runs):
        if _starts_lineage(evidence, number):
            kept = max((step or 0 for step in resumed_steps(run)), default=0)
            lineage = {name: step for name, step in lineage.items() if step <= kept}
        seen = history.starts(number).whole()
        for moment in history.moments:
            if moment.run == number:
                now = moment.live.whole()
                for name, found in () if moment.by_cut else now.items():
                    if name not in seen or seen[name].identity != found.identity:
                        lineage[name] = found.step
                seen = now
    return set(lineage)
