"""Answers questions about the ranks' records that several judges ask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.record import Finished, Raised, Record, Resumed, Stepped
from harness.faults.strike import Strike

EventLog = tuple[Record, ...]
Kind = TypeVar("Kind", bound=Record)


def records(event_log: EventLog, kind: type[Kind]) -> tuple[Kind, ...]:
    """Returns the records of one kind, in order."""
    return tuple(record for record in event_log if isinstance(record, kind))


def resumed(event_log: EventLog) -> Resumed | None:
    """Returns the rank's decision at its start; None if it did not get that far."""
    found = records(event_log, Resumed)
    return found[0] if found else None


def steps(event_log: EventLog) -> dict[int, Stepped]:
    """Returns the finished training steps of one rank in one run."""
    return {record.step: record for record in records(event_log, Stepped)}


def raised_while_loading(event_log: EventLog) -> Raised | None:
    """Returns the exception that kept the rank from resuming."""
    if resumed(event_log) is not None:
        return None
    found = records(event_log, Raised)
    return found[0] if found else None


def resumed_steps(run: RunEvidence) -> tuple[int | None, ...]:
    """Returns the steps from which the ranks resumed, without ranks that did not get that far."""
    decisions = [resumed(event_log) for event_log in run.event_logs]
    return tuple(one.step for one in decisions if one is not None)


def is_orderly(run: RunEvidence) -> bool:
    """Whether every rank ended its loop as it should."""
    return bool(run.event_logs) and all(
        records(event_log, Finished) for event_log in run.event_logs
    )


def is_cut_short(evidence: Evidence, run: int) -> bool:
    """Whether the end of the run was not observed: the plan began with what it had left."""
    return run == evidence.plan.past - 1


def was_struck(evidence: Evidence, run: int) -> bool:
    """Whether a fault was planned for the run or fired in it."""
    planned, fired = evidence.plan.runs[run].strikes, evidence.runs[run].fired
    return bool(planned or fired) or is_cut_short(evidence, run)


def fired_strikes(evidence: Evidence, run: int) -> tuple[Strike, ...]:
    """Returns the planned strikes of the run that fired in it."""
    fired = {one.strike for one in evidence.runs[run].fired}
    return tuple(one for one in evidence.plan.runs[run].strikes if one.id in fired)


def killed_ranks(evidence: Evidence, run: int) -> frozenset[int]:
    """Returns the ranks that were killed in the run; no record is expected from them."""
    if is_cut_short(evidence, run):
        return frozenset(range(len(evidence.runs[run].event_logs)))
    kills = {one.id for one in evidence.plan.runs[run].strikes if one.fault.is_deadly}
    found = evidence.runs[run].fired
    fired = [one for one in found if one.strike in kills or one.then == "killed"]
    return frozenset(rank for one in fired for rank in one.ranks)


def may_end_early(evidence: Evidence, run: int) -> bool:
    """Whether a fault struck that a job need not survive.

    That is a kill, a power cut, an end in the loop, failing storage if the loop ends with the
    failed save, or reads that fail from then on while a checkpoint is loaded. Reads that fail a few
    times are to be retried. A run whose end was not observed may have ended in any way.
    """
    goes_on, timeout_s = goes_on_after_errors(evidence), evidence.plan.timeout_s
    struck = any(
        one.fault.may_end_run(goes_on=goes_on, timeout_s=timeout_s)
        for one in fired_strikes(evidence, run)
    )
    killed = any(one.then == "killed" for one in evidence.runs[run].fired)
    return struck or killed or is_cut_short(evidence, run)


def first_end(evidence: Evidence, run: int) -> float:
    """Returns the index of the first strike that ended a rank; infinity if none did.

    What a rank raises from then on can be the strike itself, or a consequence.
    """
    goes_on, timeout_s = goes_on_after_errors(evidence), evidence.plan.timeout_s
    ending = {
        one.id
        for one in fired_strikes(evidence, run)
        if one.fault.ends_run and one.fault.may_end_run(goes_on=goes_on, timeout_s=timeout_s)
    }
    found = [one.index for one in evidence.runs[run].fired if one.strike in ending]
    return min(found, default=math.inf)


def goes_on_after_errors(evidence: Evidence) -> bool:
    """Whether the training loop continues after a failed save."""
    checkpoint = evidence.plan.checkpoint
    return checkpoint is not None and checkpoint.on_error == "go_on"


def fails_load(strike: Strike) -> bool:
    """Whether a strike makes opens or reads fail while a checkpoint is loaded."""
    return strike.fault.answers is not None and strike.point.phase == "load"


def ranks(numbers: Sequence[int]) -> str:
    """Formats ranks: `rank 1`, `ranks 0, 2`."""
    word = "rank" if len(numbers) == 1 else "ranks"
    return f"{word} {', '.join(str(number) for number in numbers)}"


def describe_step(step: int | None) -> str:
    """Formats a resume decision."""
    return "a fresh start" if step is None else f"step {step}"
