"""`bounded`: no rank waits forever; a failed save is an error on every rank and ends none.

The promise: no rank waits beyond the configured deadline for a rank that died, hung or failed to
write; every rank raises the same error, which names the rank and the cause. Training can go on and
a later save succeeds.

Evidence: the ranks that were still alive at the deadline of their run. If the scenario gives the
manager a deadline (`timeout_s`): the ranks that the launcher had to end in a call of `save` after
another rank had died, since it waits for that deadline and five seconds more. In runs whose loop
continues after a failed save: the outcome of each save on each rank. Ranks must fail at the same
saves with the same error. It must name the rank whose storage failed and the error that the storage
answered, and once the fault is over a later save must succeed. A save that meets a fault and
succeeds, because the failed operation was retried, is no violation. If reads fail while a
checkpoint is loaded and a rank raises, every rank must raise the same error, which names both.
Ranks that a cut separates from each other cannot agree on a message: they must fail at the same
saves with errors of the same type.

Never unknown: a waiting rank is always seen. Not covered: survivors of a dead rank without a
deadline in the scenario, which the launcher ends after five seconds; survivors that torchrun or
SLURM ends as soon as it sees the dead one; survivors that wait in another call than `save`; the
errors of a run in which a rank was killed or ended in its loop, because that rank learns of nothing
any more and no later save can succeed.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator

from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.record import Drained, Raised, Record, SaveBegan, SaveReturned
from harness.faults.strike import Strike
from harness.judge.event_logs import (
    EventLog,
    fails_load,
    fired_strikes,
    goes_on_after_errors,
    killed_ranks,
    may_end_early,
    raised_while_loading,
    ranks,
    records,
)
from harness.judge.history import History
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="bounded",
    sentence="No rank waits beyond the configured deadline for a rank that died, hung or failed to "
    "write; every rank raises the same error, which names the rank and the cause; training can go "
    "on and a later save succeeds.",
    outcome=Outcome.HANG,
    uses=(EvidenceKind.TREE, EvidenceKind.RESUMES, EvidenceKind.ACKNOWLEDGEMENTS),
)

_CALLS = ("save", "wait", "flush_pending_save")
Failures = dict[int, Raised]
"""The errors of a rank's failed saves, by the last save that it had begun."""


def judge(evidence: Evidence, _history: History) -> Verdict:
    """Look for ranks that were alive at the deadline, and at the errors of failed saves."""
    findings: list[Finding] = []
    waiting: list[Finding] = []
    checkpoint = evidence.plan.checkpoint
    goes_on, timeout_s = goes_on_after_errors(evidence), evidence.plan.timeout_s
    success = Drained if evidence.plan.in_background else SaveReturned
    for number, run in enumerate(evidence.runs):
        if run.processes.hung:
            last = (number, run.operations[-1].index) if run.operations else None
            late = ranks(run.processes.hung)
            silent_s = run.processes.deadline_s
            detail = f"run {number}: {late} still alive after {silent_s:.0f} s without a record"
            # A deadlock in a run that nothing struck needs no deadline to be wrong.
            part = "deadlines" if run.fired else None
            waiting.append(Finding(detail=detail, operation=last, part=part))
        # Another launcher ends survivors at once: how long they would have waited is unknown.
        local = evidence.plan.launcher.is_local
        if local and checkpoint is not None and checkpoint.timeout_s is not None:
            waiting += _findings(number, _left_waiting(run), "deadlines")
        strikes = fired_strikes(evidence, number)
        # Ranks that a cut separates for good all see the save fail, and end later, in training.
        only_parted = _are_parted(strikes) and not killed_ranks(evidence, number)
        ends_early = may_end_early(evidence, number) and not only_parted
        if goes_on and not run.processes.hung and not ends_early:
            findings += _findings(number, _errors(run, strikes, timeout_s), "errors")
            # If the file system lacks what a save needs, none can succeed.
            if not evidence.plan.refuses:
                later = _no_later_save(run, strikes, success, timeout_s)
                findings += _findings(number, later, "later_saves")
        if not killed_ranks(evidence, number) and not run.processes.hung:
            found = _start_errors(run, strikes, timeout_s)
            findings += _findings(number, found, "errors")
    return PROMISE.verdict([*waiting, *findings])


def _findings(number: int, problems: Iterable[str], part: str) -> list[Finding]:
    outcome = None if part == "deadlines" else Outcome.HARD_FAIL
    return [Finding(detail=f"run {number}: {one}", part=part, outcome=outcome) for one in problems]


def _left_waiting(run: RunEvidence) -> Iterator[str]:
    """Yields ranks that were ended in a save although the deadline of their manager was over."""
    for rank in run.processes.stopped:
        begun = None
        for record in run.event_logs[rank]:
            if isinstance(record, SaveBegan):
                begun = record.ordinal
            elif isinstance(record, SaveReturned | Raised):
                begun = None
        if begun is not None:
            yield (
                f"rank {rank} still waited in save {begun} when the deadline of its manager was "
                "over"
            )


def _errors(run: RunEvidence, strikes: tuple[Strike, ...], timeout_s: float | None) -> list[str]:
    """Returns problems with the errors of one run whose ranks all came to an end."""
    failures = [_failures(event_log) for event_log in run.event_logs]
    first = failures[0] if failures else {}
    parted = _are_parted(strikes)
    problems: list[str] = []
    for rank, other in enumerate(failures):
        if other.keys() != first.keys():
            problems.append(
                f"rank 0 saw saves {sorted(first)} fail, rank {rank} saves {sorted(other)}"
            )
        for save in other.keys() & first.keys():
            summarize = _words if not parted else _kind
            mine, theirs = summarize(first[save]), summarize(other[save])
            if mine != theirs:
                problems.append(f"save {save}: rank 0 raised {mine}, rank {rank} raised {theirs}")
    if first:
        problems += _unnamed(first, tuple(one for one in strikes if not fails_load(one)), timeout_s)
    return problems


def _start_errors(
    run: RunEvidence, strikes: tuple[Strike, ...], timeout_s: float | None
) -> list[str]:
    """Returns problems with the errors of a start whose reads failed."""
    failing = tuple(one for one in strikes if fails_load(one))
    raised = [raised_while_loading(event_log) for event_log in run.event_logs]
    errors = [one for one in raised if one is not None]
    if not failing or not errors:
        return []
    silent = [rank for rank, one in enumerate(raised) if one is None]
    problems = [f"rank {rank} did not learn that the start failed" for rank in silent]
    if len({_words(one) for one in errors}) > 1:
        problems.append(f"the ranks raised {' and '.join(sorted({_words(one) for one in errors}))}")
    return problems + _unnamed({0: errors[0]}, failing, timeout_s)


def _failures(event_log: EventLog) -> Failures:
    found: Failures = {}
    begun = 0
    for record in event_log:
        if isinstance(record, SaveBegan):
            begun = record.ordinal
        elif isinstance(record, Raised) and record.during in _CALLS:
            found[begun] = record
    return found


def _words(error: Raised) -> str:
    return f"{error.type}: {error.message}"[:400]


def _are_parted(strikes: tuple[Strike, ...]) -> bool:
    return any(one.fault.parts_ranks for one in strikes)


def _kind(error: Raised) -> str:
    """Returns what the errors of separated ranks share: each names the other side."""
    return error.type


def _unnamed(failures: Failures, strikes: tuple[Strike, ...], timeout_s: float | None) -> list[str]:
    """Returns problems of errors that do not say whose storage failed, and why."""
    text = "\n".join(error.message for error in failures.values())
    problems: list[str] = []
    for strike in strikes:
        error = strike.fault.answers
        if error is None and not strike.fault.stalls(timeout_s):
            continue
        rank = strike.ranks[0]
        if rank not in _named_ranks(text):
            problems.append(f"no error names rank {rank}, whose storage failed")
        if error is not None and not _says(text, error):
            problems.append(f"no error says {error}, which the storage answered")
    return problems


_NAMED = re.compile(
    r"(?:(?<![a-z_-])|(?<=global_))rank(?:[\W_]{0,3}\d+|(?:s|\(s\))[\W_]{1,3}\d+(?:(?:,|\s|and)+\d+)*)",
    re.IGNORECASE,
)
"""`rank 1`, `RANK 1`, `rank=1`, `[rank1]`, `ranks [0, 1]`; not `pp_rank 1`, which is a stage."""


def _named_ranks(text: str) -> frozenset[int]:
    """Returns the ranks that a text names, in any usual form."""
    named = _NAMED.findall(text)
    return frozenset(int(number) for words in named for number in re.findall(r"\d+", words))


def _says(text: str, name: str) -> bool:
    number = getattr(errno, name)
    return any(word in text for word in (name, os.strerror(number), f"Errno {number}"))


def _last_save_hit(run: RunEvidence, strikes: tuple[Strike, ...], timeout_s: float | None) -> int:
    """Returns the ordinal of the last save in which the storage failed; 0 if there is none."""
    errors = {
        (one.ranks[0], getattr(errno, one.fault.answers))
        for one in strikes
        if one.fault.answers is not None
    }
    failed = [one.save for one in run.operations if one.error and (one.rank, one.error) in errors]
    # An operation that was done and answered an error has none in the trace.
    answered = {one.id for one in strikes if one.fault.answers is not None}
    at = {one.index for one in run.fired if one.strike in answered and one.then is None}
    failed += [one.save for one in run.operations if one.index in at]
    hung = [one.point.save for one in strikes if one.fault.stalls(timeout_s)]
    return max((save for save in failed + hung if save is not None), default=0)


def _no_later_save(
    run: RunEvidence,
    strikes: tuple[Strike, ...],
    success: type[Record],
    timeout_s: float | None,
) -> list[str]:
    """Returns ranks on which no save succeeded after the last failure, although the fault was over.

    If the storage still failed in the last save, none could have succeeded. In the background modes
    the next save reports a failure, and can itself succeed: the wait for it, when it returns, says
    so.
    """
    if any(one.fault.lasts for one in strikes):
        return []
    hit = _last_save_hit(run, strikes, timeout_s)
    for rank, event_log in enumerate(run.event_logs):
        if not any(one.ordinal > hit for one in records(event_log, SaveBegan)):
            continue
        succeeded = True
        for record in event_log:
            if isinstance(record, Raised) and record.during in _CALLS:
                succeeded = False
            elif isinstance(record, success):
                succeeded = True
        if not succeeded:
            return [f"no save succeeded on rank {rank} after the last one that failed"]
    return []
