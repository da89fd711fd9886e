"""Guards against vacuous proofs: conditions without which a verdict means nothing.

A failed guard makes the scenario INVALID, with two exceptions: a run that nothing struck, and that
did not end in order, is a failure of the job itself; and a strike that did not fire proves nothing,
but takes nothing back from what the job did wrong without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.record import Entered, Finished, Raised, Resumed, Stepped, Struck
from harness.faults.base import LeavingFault
from harness.faults.point import Point
from harness.faults.strike import Strike
from harness.judge import displaced, refusals, second_job
from harness.judge.event_logs import (
    EventLog,
    fired_strikes,
    goes_on_after_errors,
    killed_ranks,
    may_end_early,
    ranks,
    records,
    steps,
)
from harness.judge.history import History
from harness.judge.lacking import lacks
from harness.judge.outcome import Outcome
from harness.judge.verdict import Verdict
from harness.words import EvidenceKind

_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One condition, and the outcome if it fails.

    It was checked without what it `lacks`, or not at all. `spared` is what was found against the
    part of a promise that the implementation does not make.
    """

    name: str
    sentence: str
    details: tuple[str, ...] = ()
    outcome: Outcome = Outcome.PASS
    lacks: tuple[EvidenceKind, ...] = ()
    is_checked: bool = True
    spared: tuple[str, ...] = ()
    spoils: bool = True
    """Whether no verdict has a foundation if it fails with INVALID."""

    @property
    def passed(self) -> bool:
        """Whether the condition is true, as far as the evidence shows."""
        return self.outcome is Outcome.PASS

    def left_out(self) -> str | None:
        """The part that was not checked, in one line; None if all was."""
        if self.spared:
            return f"not promised: {self.name}: {self.spared[0]}"
        if not self.lacks:
            return None
        how = "checked in part" if self.is_checked else "not checked"
        return f"{how}: {self.name} (no evidence of: {', '.join(self.lacks)})"


Look = Callable[[Evidence, History | None], Iterable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How a guard is checked: `look` describes where the condition is not true.

    `needs` and `uses` have the same meaning as for properties. If the scenario asks for the
    condition and the job cannot give what the check needs, nothing is proved.
    """

    name: str
    sentence: str
    look: Look
    outcome: Outcome = Outcome.INVALID
    needs: tuple[EvidenceKind, ...] = ()
    uses: tuple[EvidenceKind, ...] = ()
    is_asked: Callable[[Evidence], bool] | None = None
    """None for a condition of every scenario."""
    part: str | None = None
    """The part of a promise that it rests on (`harness.promises`), if any."""
    spoils: bool = True

    def guard(self, evidence: Evidence, history: History | None) -> Guard:
        """Returns the guard for one scenario."""
        missing = lacks(evidence, self.needs)
        if missing:
            asked = self.is_asked is not None and self.is_asked(evidence)
            reason = f"no evidence of: {', '.join(missing)}"
            outcome, said = Outcome.INVALID, [reason] if asked else []
        else:
            outcome, said = self.outcome, list(self.look(evidence, history))
        spared: list[str] = []
        if self.part not in (None, *evidence.plan.implementation.promises):
            said, spared = [], said
        return Guard(
            name=self.name,
            sentence=self.sentence,
            details=tuple(said),
            outcome=outcome if said else Outcome.PASS,
            lacks=() if self.is_asked else lacks(evidence, (*self.needs, *self.uses)),
            is_checked=not missing,
            spared=tuple(spared),
            spoils=self.spoils,
        )


def check(
    evidence: Evidence, history: History | None, verdicts: Sequence[Verdict]
) -> tuple[Guard, ...]:
    """Checks all guards for one scenario; `verdicts` are those that were judged on evidence."""
    idle = () if verdicts else ("no property applied",)
    judged = Check(
        name="something_judged",
        sentence="At least one property applies.",
        look=lambda _evidence, _history: idle,
    )
    return tuple(one.guard(evidence, history) for one in (*CHECKS, judged))


def _gaps(evidence: Evidence, history: History | None) -> tuple[str, ...]:
    gaps = ("the operations could not be replayed",) if history is None else history.gaps
    unseen = [f"run {n}: {one}" for n, run in enumerate(evidence.runs) for one in run.unseen]
    return (*gaps, *unseen) if gaps else ()


def _missed(evidence: Evidence) -> Iterator[str]:
    for number, (plan, run) in enumerate(zip(evidence.plan.runs, evidence.runs, strict=False)):
        fired = {one.strike for one in run.fired}
        for strike in plan.strikes:
            if strike.id not in fired:
                point = strike.point.model_dump(exclude_defaults=True)
                where = ", ".join(f"{name}: {value}" for name, value in point.items())
                before = _raised_first(run)
                yield f"run {number}: {strike.id} did not strike (at {where}){before}"
                if strike.point.phase == "load":
                    yield f"run {number}: {_read_instead(strike, run)}"
            elif not run.processes.hung and (missing := _owed(strike, run)):
                yield f"run {number}: {strike.id} struck, but {missing}"


def _owed(strike: Strike, run: RunEvidence) -> str:
    """Describes the event that a fired strike still owes; empty if it owes none."""
    owed = strike.fault.owes()
    then = {one.then for one in run.fired if one.strike == strike.id}
    return "" if owed is None or owed.word in then else owed.otherwise


def _incomplete(evidence: Evidence) -> Iterator[str]:
    """Yields strikes without the effect that they have at once, and runs missing for no reason."""
    for number, run in enumerate(evidence.runs):
        for strike in () if run.processes.hung else fired_strikes(evidence, number):
            if missing := _without_effect(strike, run):
                yield f"run {number}: {strike.id} struck, but {missing}"
    # A run that hung or that a strike missed is the last one, and is reported itself; so is an
    # action that was not done.
    hung = any(run.processes.hung for run in evidence.runs)
    said = hung or any(_missed(evidence)) or any(_undone(evidence))
    if len(evidence.runs) < len(evidence.plan.runs) and not said:
        yield f"{len(evidence.runs)} of {len(evidence.plan.runs)} runs took place"


def _without_effect(strike: Strike, run: RunEvidence) -> str:
    """Describes the effect that a fired strike lacks; empty if it lacks none."""
    if strike.fault.disk is not None and not _ends_with_the_cut(strike, run):
        return "its trace does not end with what the power cut left"
    fault = strike.fault
    unharmed = [
        rank
        for rank in strike.ranks
        if isinstance(fault, LeavingFault)
        and not _ended_by(strike.id, fault.leaves().__name__, run.event_logs[rank])
    ]
    return f"nothing left the loop of {ranks(unharmed)}" if unharmed else ""


def _ends_with_the_cut(strike: Strike, run: RunEvidence) -> bool:
    """Whether the listing follows at once: no rank did anything after the strike."""
    places = [one.index for one in run.fired if one.strike == strike.id]
    last = run.operations[-1] if run.operations else None
    return run.cut is not None and last is not None and (last.kind, [last.index]) == ("cut", places)


def _ended_by(strike: str, wanted: str, event_log: EventLog) -> bool:
    """Whether the exception of a strike is the last that the rank recorded."""
    return any(
        isinstance(before, Struck)
        and before.strike == strike
        and isinstance(one, Raised)
        and one.type == wanted
        for before, one in pairwise(event_log)
    )


def _undone(evidence: Evidence) -> Iterator[str]:
    for number, plan in enumerate(evidence.plan.runs[: len(evidence.runs) + 1]):
        at_rest = evidence.at_rest.get(number)
        known = {one.action_id: one for one in at_rest.done} if at_rest is not None else {}
        for action in plan.before:
            done = known.get(action.id)
            if done is not None and done.problem is not None:
                yield f"before run {number}: {action.id}: {done.problem}"
                return
            if done is None and number < len(evidence.runs):
                yield f"before run {number}: {action.id} was not done"


def _raised_first(run: RunEvidence) -> str:
    """Describes a rank's exception in a run in which a strike was missed, as the likely reason."""
    for rank, event_log in enumerate(run.event_logs):
        for one in records(event_log, Raised):
            first_line = one.message.partition("\n")[0][:200]
            return f"; rank {rank} had raised during {one.during}: {one.type}: {first_line}"
    return ""


def _read_instead(strike: Strike, run: RunEvidence) -> str:
    """Describes the files that a rank opened and read, if a strike on its load was missed."""
    kinds = {"open_read": "opened", "read": "read"}
    seen = [
        f"{kinds[one.kind]} {one.path}"
        for one in run.operations
        if one.kind in kinds and one.rank == strike.point.rank and one.phase == "load"
    ]
    unique = list(dict.fromkeys(seen))
    shown = ", ".join(unique[:_SHOWN]) + (
        f" and {len(unique) - _SHOWN} more" * (len(unique) > _SHOWN)
    )
    return f"while it loaded rank {strike.point.rank} {shown or 'opened nothing'}"


def _idle(evidence: Evidence) -> Iterator[str]:
    """Yields signs that the reference proves nothing."""
    event_logs = [steps(event_log) for event_log in evidence.reference]
    if not event_logs or not all(event_logs):
        yield "a rank of it finished no step"
        return
    if evidence.plan.command is not None:  # a probe need not say more
        return
    for step in sorted(event_logs[0]):
        if not any(event_log[step].trained for event_log in event_logs if step in event_log):
            yield f"step {step}: no parameter had a gradient on any rank"
    if not any(_moved(event_log) for event_log in evidence.reference):
        yield "no weight moved on any rank"
    if not any(record.samples for event_log in event_logs for record in event_log.values()):
        yield "no sample was consumed"


def _moved(event_log: EventLog) -> bool:
    """Whether a rank's parameters changed between its start and its last step."""
    before = [record.state.params for record in records(event_log, Resumed)]
    seen = before + [record.state.params for record in records(event_log, Stepped)]
    return any(params != seen[0] for params in seen)


def _lost(evidence: Evidence) -> Iterator[str]:
    """Yields ranks of struck runs that ended without a record, though nothing had hit them."""
    for number, run in enumerate(evidence.runs):
        if not may_end_early(evidence, number):
            continue
        excused = killed_ranks(evidence, number) | {*run.processes.stopped, *run.processes.hung}
        for rank, event_log in enumerate(run.event_logs):
            if (
                rank not in excused
                and not records(event_log, Finished)
                and not records(event_log, Raised)
            ):
                yield f"run {number}, rank {rank} ended without a record ({_exit(run, rank)})"


def _failed(evidence: Evidence) -> Iterator[str]:
    for number, run in enumerate(evidence.runs):
        if may_end_early(evidence, number) or evidence.plan.runs[number].refused is not None:
            continue
        refuses = evidence.plan.refuses and goes_on_after_errors(evidence)
        records_ends = not lacks(evidence, (EvidenceKind.ENDS,))
        goes_on = refuses or any(
            one.fault.may_fail_saves(evidence.plan.timeout_s)
            for one in fired_strikes(evidence, number)
        )
        for rank, event_log in enumerate(run.event_logs):
            raised = () if goes_on else records(event_log, Raised)
            if raised:
                one = raised[0]
                first_line = one.message.partition("\n")[0][:200]
                yield f"run {number}, rank {rank}, {one.during}: {one.type}: {first_line}"
            elif rank in run.processes.hung or rank in run.processes.stopped:
                continue
            elif (records_ends and not records(event_log, Finished)) or _status(run, rank) != 0:
                yield f"run {number}, rank {rank} did not end in order ({_exit(run, rank)})"
            elif _ignored_sigterm(evidence, number, event_log):
                word = _signal(evidence, number)
                yield f"run {number}, rank {rank} trained on to the end in spite of {word}"


def _ignored_sigterm(evidence: Evidence, number: int, event_log: EventLog) -> bool:
    """Whether the run was asked to end before its last step, and did not."""
    until = evidence.plan.runs[number].until_step
    early = any(
        strike.fault.asks_to_end and (_asked_after(strike.point, event_log) or until) < until
        for strike in fired_strikes(evidence, number)
    )
    return early and any(one.reason != "shutdown" for one in records(event_log, Finished))


def _asked_after(point: Point, event_log: EventLog) -> int | None:
    """Returns the step after which the loop first notices a signal of this point, if it has to.

    Before there are handlers, in an operation, and after the last step it need not.
    """
    entered = [one for one in records(event_log, Entered) if one.period == point.during]
    if point.during == "evaluation":
        return entered[point.nth - 1].step if len(entered) >= point.nth else None
    if point.during in ("loading", "training"):
        return min(steps(event_log), default=None)
    return point.step


def _began_too_early(evidence: Evidence) -> Iterator[str]:
    wanted, number = evidence.plan.expect.first_step, len(evidence.plan.runs) - 1
    if wanted is None or len(evidence.runs) <= number:
        return
    result = evidence.runs[number].result
    found = None if result is None else result.first_step
    if found is not None and found < wanted:
        yield f"run {number}: its first step line is of step {found}, expected {wanted} or later"


def _other_results(evidence: Evidence) -> Iterator[str]:
    """Yields each file of a command's result that is not as in the uninterrupted run."""
    for number, run in enumerate(evidence.runs):
        if run.result is None:
            continue
        yield from (f"run {number}: {one}" for one in run.result.differences)
        if run.result.differences and run.result.other_line is not None:
            yield f"run {number}: the first other step line is `{run.result.other_line}`"


def _signal(evidence: Evidence, number: int) -> str:
    asked = (one.fault.asks_to_end for one in fired_strikes(evidence, number))
    return " and ".join(sorted({signal for signal in asked if signal is not None}))


def _status(run: RunEvidence, rank: int) -> int | None:
    return run.processes.exits[rank] if rank < len(run.processes.exits) else None


def _exit(run: RunEvidence, rank: int) -> str:
    status = _status(run, rank)
    if status is None:
        return "no exit status"
    return f"signal {-status}" if status < 0 else f"exit status {status}"


CHECKS = (
    Check(
        name="strikes_fired",
        sentence="Every planned strike has fired.",
        look=lambda evidence, _: _missed(evidence),
        spoils=False,
    ),
    Check(
        name="strikes_complete",
        sentence="Every strike that fired had its effect, and every run took place.",
        look=lambda evidence, _: _incomplete(evidence),
    ),
    Check(
        name="actions_done",
        sentence="Every action between runs was done.",
        look=lambda evidence, _: _undone(evidence),
    ),
    Check(
        name="trace_complete",
        sentence="The trace explains what was on the disk after each run.",
        look=_gaps,
        needs=(EvidenceKind.TREE,),
    ),
    Check(
        name="reference_trained",
        sentence="The uninterrupted run trained.",
        look=lambda evidence, _: _idle(evidence),
        needs=(EvidenceKind.REFERENCE, EvidenceKind.TRAINING),
    ),
    Check(
        name="ranks_accounted",
        sentence="Every rank that was not killed recorded its end.",
        look=lambda evidence, _: _lost(evidence),
        needs=(EvidenceKind.ENDS,),
    ),
    Check(
        name="undisturbed_runs_end",
        sentence="A run that nothing kills ends in order on every rank, and early if it is asked "
        "to.",
        look=lambda evidence, _: _failed(evidence),
        outcome=Outcome.HARD_FAIL,
        uses=(EvidenceKind.ENDS,),
    ),
    Check(
        name="second_job_refused",
        sentence="A second job on the directory is refused alike on every rank, and changes "
        "nothing.",
        look=lambda evidence, _: second_job.not_refused(evidence),
        outcome=Outcome.HARD_FAIL,
        needs=(EvidenceKind.TREE, EvidenceKind.RESUMES),
        is_asked=second_job.is_asked,
    ),
    Check(
        name="displaced_untouched",
        sentence="While the directory is moved away, nothing is changed in its place.",
        look=lambda evidence, _: displaced.touched(evidence),
        outcome=Outcome.LOST_WORK,
        needs=(EvidenceKind.TREE,),
        is_asked=displaced.is_asked,
    ),
    Check(
        name="first_step",
        sentence="The last run goes on from where an earlier interruption could have left it.",
        look=lambda evidence, _: _began_too_early(evidence),
        outcome=Outcome.LOST_WORK,
        is_asked=lambda evidence: evidence.plan.expect.first_step is not None,
    ),
    Check(
        name="same_result",
        sentence="A command that was interrupted and started again leaves the result of one that "
        "was not.",
        look=lambda evidence, _: _other_results(evidence),
        outcome=Outcome.SILENT_DIVERGENCE,
        is_asked=lambda evidence: evidence.plan.command is not None,
    ),
    # Two guards, because a start that was not refused is another failure than a wrong refusal.
    Check(
        name="refused",
        sentence="A start that must be refused is refused, and changes nothing.",
        look=refusals.not_refused,
        outcome=Outcome.SILENT_DIVERGENCE,
        needs=(EvidenceKind.TREE, EvidenceKind.RESUMES),
        is_asked=refusals.is_asked,
    ),
    Check(
        name="refused_alike",
        sentence="Every rank refuses it with the same error, which is the expected one.",
        look=lambda evidence, _: refusals.differing_errors(evidence),
        outcome=Outcome.HARD_FAIL,
        needs=(EvidenceKind.RESUMES,),
        is_asked=refusals.is_asked,
        part="errors",
    ),
)
