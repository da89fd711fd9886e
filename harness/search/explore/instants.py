"""Determines which instants of a baseline trace are the same for a job that is killed there."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from harness.disk.disk import Disk
from harness.disk.fingerprint import fingerprint
from harness.disk.profiles import PROFILES
from harness.disk.replay import happened
from harness.evidence.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Instants:
    """Just before and just after each operation; equal numbers mean equal instants."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def number_instants(evidence: Evidence, run: int) -> Instants:
    """Number the instants of one run.

    The number stays the same while no operation changes the directory, live or as a power cut would
    leave it, and no rank writes a record: acknowledgements, and how far each rank is, count too.
    """
    disk = Disk(PROFILES["posix"])
    disk.follow(happened(evidence, run, 0))
    this = evidence.runs[run]
    places = sorted(record.index for event_log in this.event_logs for record in event_log)
    before: list[int] = []
    after: list[int] = []
    number, recorded, seen = 0, 0, fingerprint(disk)
    for operation in this.operations:
        written = bisect_right(places, operation.index)
        number += written != recorded
        recorded = written
        before.append(number)
        disk.apply(run, operation, this.written)
        now = fingerprint(disk)
        number += now != seen
        seen = now
        after.append(number)
    return Instants(before=tuple(before), after=tuple(after))
