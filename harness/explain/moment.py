"""One moment of a run: what each rank was doing, and what a power cut could still have taken.

Pure, over evidence. A moment is a position in the order of operations: all before it had happened.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.disk.changes import FileLog, NameChange
from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES
from harness.disk.replay import happened
from harness.evidence.evidence import Evidence, RunEvidence
from harness.evidence.operation import Operation
from harness.evidence.record import (
    Drained,
    Entered,
    Finished,
    Raised,
    SaveBegan,
    SaveReturned,
    Stepped,
)
from harness.judge.event_logs import EventLog

_MOST_CHANGES = 8
_CALLS_END = (SaveReturned, Raised, Finished)


def describe_ranks(run: RunEvidence, index: int) -> Iterator[str]:
    """Yields a line for each rank: how far it was, in which save, and its last operation."""
    for rank, event_log in enumerate(run.event_logs):
        facts = [_progress(event_log, index), *_call(event_log, index)]
        before = [one for one in run.operations[:index] if one.rank == rank]
        if before:
            facts.append(f"last did {describe_operation(before[-1])}")
        yield f"rank {rank}{_end(run, rank)}: {', '.join(facts)}"


def describe_operation(operation: Operation) -> str:
    """Describes an operation in a few words: `#61 write of step_4/.metadata (save 2, flush)`."""
    name = operation.path
    if operation.target is not None:
        name += f" -> {operation.target}"
    save = None if operation.save is None else f"save {operation.save}"
    where = ", ".join(word for word in (save, operation.phase) if word)
    failed = f", which failed with errno {operation.error}" if operation.error else ""
    return f"#{operation.index} {operation.kind} of {name}{f' ({where})' if where else ''}{failed}"


def describe_not_durable(evidence: Evidence, number: int, index: int) -> Iterator[str]:
    """Yields unsynced changes: names first, then the bytes of files."""
    disk = disk_at(evidence, number, index)
    lines = [
        f"{change.describe()} (rank {change.operation.rank}, #{change.operation.index})"
        for change in disk.journal
        if isinstance(change, NameChange)
    ]
    paths = {
        log.number: disk.files.path_of(log.number) or log.changes[-1].operation.path
        for log in disk.dirty.values()
    }
    lines += [_bytes(log, paths[log.number]) for log in disk.dirty.values()]
    yield from lines[:_MOST_CHANGES]
    if len(lines) > _MOST_CHANGES:
        yield f"and {len(lines) - _MOST_CHANGES} more changes"
    if not lines:
        yield "nothing: every change that had been made was synced"


def disk_at(evidence: Evidence, number: int, index: int) -> Disk:
    """Returns the disk after so many operations of a run, including all earlier runs."""
    disk = Disk(PROFILES["posix"])
    disk.follow(happened(evidence, number, index))
    return disk


def _progress(event_log: EventLog, index: int) -> str:
    seen = [one for one in event_log if one.index <= index]
    steps = [one.step for one in seen if isinstance(one, Stepped)]
    done = f"had finished step {steps[-1]}" if steps else "had trained no step"
    last = [one for one in seen if isinstance(one, Entered | Stepped | SaveBegan)][-1:]
    return done + "".join(f" and entered {one.period}" for one in last if isinstance(one, Entered))


def _call(event_log: EventLog, index: int) -> Iterator[str]:
    """Yields the save that it was in, if any."""
    open_save: SaveBegan | None = None
    drained = True
    for record in event_log:
        if record.index > index:
            break
        if isinstance(record, SaveBegan):
            open_save, drained = record, False
        elif isinstance(record, _CALLS_END):
            open_save = None
        drained = drained or isinstance(record, Drained)
    if open_save is not None:
        yield f"was in save {open_save.ordinal} (step {open_save.step})"
    elif not drained:
        yield "was in no save"


def _end(run: RunEvidence, rank: int) -> str:
    status = run.processes.exits[rank] if rank < len(run.processes.exits) else None
    if rank in run.processes.hung:
        return " (hung)"
    if rank in run.processes.stopped:
        return " (ended by the launcher)"
    if status is None or status == 0:
        return ""
    return f" (signal {-status})" if status < 0 else f" (exit status {status})"


def _bytes(log: FileLog, path: str) -> str:
    pending = log.changes[log.lasting :]
    first, last = pending[0].operation.index, pending[-1].operation.index
    where = f"#{first}" if first == last else f"#{first} to #{last}"
    size = sum(one.size for one in pending)
    return f"{size} bytes of {path} (rank {pending[-1].operation.rank}, {where})"
