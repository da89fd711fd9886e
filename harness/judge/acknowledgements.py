"""Which saves were acknowledged to the job as durable, and when."""

from __future__ import annotations

from harness.evidence.evidence import RunEvidence
from harness.evidence.record import Drained, Raised, SaveBegan, SaveReturned
from harness.judge.event_logs import EventLog, records


def acknowledged_steps(run: RunEvidence, *, background: bool) -> set[int]:
    """Returns the steps that were acknowledged to every rank of the run as durable."""
    of = _drained if background else _returned
    each = [of(event_log) for event_log in run.event_logs]
    return set.intersection(*each) if each else set()


def _returned(event_log: EventLog) -> set[int]:
    return {record.step for record in records(event_log, SaveReturned)}


def _drained(event_log: EventLog) -> set[int]:
    begun: set[int] = set()
    durable: set[int] = set()
    for record in event_log:
        if isinstance(record, SaveBegan):
            begun.add(record.step)
        elif isinstance(record, Raised):
            begun.clear()  # one of them failed, and the exception need not say which
        elif isinstance(record, Drained):
            durable |= begun
    return durable


def acknowledged_at(run: RunEvidence, *, background: bool) -> dict[int, int]:
    """Returns by step the number of operations after which every rank had its acknowledgement.

    A step that is saved again counts from its first acknowledgement. Steps of a run that no
    supervisor watched are left out, because the instant is unknown.
    """
    each = [_first_places(event_log, background=background) for event_log in run.event_logs]
    everywhere = set.intersection(*map(set, each)) if each else set()
    places = {step: [one[step] for one in each] for step in sorted(everywhere)}
    return {step: max(found) for step, found in places.items() if min(found) >= 0}


def _first_places(event_log: EventLog, *, background: bool) -> dict[int, int]:
    return dict(reversed(_claims(event_log, background=background)))


def _claims(event_log: EventLog, *, background: bool) -> list[tuple[int, int]]:
    """Returns the steps acknowledged to a rank, and when; of several at once the last one."""
    if not background:
        return [(one.step, one.index) for one in records(event_log, SaveReturned)]
    found: list[tuple[int, int]] = []
    begun: int | None = None
    for record in event_log:
        if isinstance(record, SaveBegan):
            begun = record.step
        elif isinstance(record, Raised):
            begun = None
        elif isinstance(record, Drained) and begun is not None:
            found.append((begun, record.index))
            begun = None
    return found
