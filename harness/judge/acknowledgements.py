"""Which saves were acknowledged to the job as durable, and when."""

from __future__ import annotations

from harness.evidence.evidence import RunEvidence
from harness.evidence.record import Drained, Raised, SaveBegan, SaveReturned
from harness.judge.event_logs import EventLog, records


def acknowledged_steps(run: RunEvidence, *, background: bool) -> set[int]:
    """Returns the steps that were acknowledged to some rank of the run as durable."""
    of = _drained if background else _returned
    return {step for event_log in run.event_logs for step in of(event_log)}


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
    """Returns by step the number of operations until its first acknowledgement to a rank."""
    each = acknowledged_to(run, background=background)
    return {step: min(places.values()) for step, places in each.items()}


def acknowledged_to(run: RunEvidence, *, background: bool) -> dict[int, dict[int, int]]:
    """Returns by step and rank the number of operations until the acknowledgement.

    A step that is saved again counts from its first acknowledgement. Steps of a run that no
    supervisor watched are left out, because the instant is unknown.
    """
    found: dict[int, dict[int, int]] = {}
    for rank, event_log in enumerate(run.event_logs):
        for step, place in _first_places(event_log, background=background).items():
            if place >= 0:
                found.setdefault(step, {})[rank] = place
    return dict(sorted(found.items()))


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
