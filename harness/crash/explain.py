"""Finds the missing order: the smallest loss that breaks a promise, and what it breaks it for.

First, everything that can be is given back to a bad state without healing it; what is then still
lost is the cause. Then everything else that can be is taken away; what is then still kept is the
change that must not be durable before the cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.crash.judge import StateDefect
from harness.disk.changes import FileLog, NameChange, OperationKey, Version
from harness.disk.disk import Disk, JournalEntry
from harness.disk.profiles import Profile
from harness.disk.state import SurvivingChanges

FaultsOf = Callable[[SurvivingChanges], tuple[StateDefect, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The smallest loss, and the smallest rest beside it, in which a fault shows.

    `exposed` holds serials of changes of names. `operations` are those of everything named.
    """

    fault: StateDefect
    sentence: str
    loss: Loss
    exposed: frozenset[int]
    operations: tuple[OperationKey, ...]

    def explains(self, fault: StateDefect, loss: Loss) -> bool:
        """Whether a state that shows a fault is another case of this cause."""
        return (
            fault[:2] == self.fault[:2]
            and self.loss.names <= loss.names
            and self.loss.files <= loss.files
            and not self.exposed & loss.names
        )


class Loss(NamedTuple):
    """The losses of a choice: serials of changes of names, and numbers of incomplete files."""

    names: frozenset[int]
    files: frozenset[int]


def loss_of(disk: Disk, choice: SurvivingChanges) -> Loss:
    """Returns the losses of a choice on the disk."""
    return Loss(
        names=frozenset(one.serial for one in disk.journal) - choice.kept,
        files=frozenset(one for one in choice.versions if _is_damaged(disk, choice, one)),
    )


def explain(
    disk: Disk, profile: Profile, choice: SurvivingChanges, fault: StateDefect, faults_of: FaultsOf
) -> Cause:
    """Returns the cause of a fault in the state that a choice leaves at this instant."""

    def is_bad(other: SurvivingChanges) -> bool:
        return any(one[:2] == fault[:2] for one in faults_of(other))

    small = _give_back(disk, profile, choice, is_bad)
    bare = _take_away(disk, profile, small, is_bad)
    waiting = [one for one in disk.journal if isinstance(one, NameChange)]
    lost = [one for one in waiting if one.serial not in small.kept]
    exposed = [one for one in waiting if one.serial in bare.kept]
    logs = [disk.logs[number] for number in sorted(loss_of(disk, small).files)]
    data = [change for log in logs for change in log.changes[log.lasting :]]
    reasons = [f"{one.describe()} {_where((one,))}" for one in lost]
    reasons += [_describe_file(disk, log, small.versions[log.number]) for log in logs]
    left = [f"{one.describe()} {_where((one,))}" for one in exposed]
    changes: list[JournalEntry] = [*lost, *data, *exposed]
    return Cause(
        fault=next(one for one in faults_of(small) if one[:2] == fault[:2]),
        sentence=_sentence(fault, reasons, left),
        loss=Loss(frozenset(one.serial for one in lost), frozenset(log.number for log in logs)),
        exposed=frozenset(one.serial for one in exposed),
        operations=tuple(dict.fromkeys((one.run, one.operation.index) for one in changes)),
    )


def _sentence(fault: StateDefect, reasons: list[str], exposed: list[str]) -> str:
    if not reasons:
        after = f"; it came with {exposed[-1]}" if exposed else ""
        return f"not safe even when nothing is lost{after}"
    cause = " and ".join(reasons)
    verb = "is" if len(reasons) == 1 else "are"
    if exposed:
        shown = " and ".join(exposed)
        return f"safe only if {shown} {'is' if len(exposed) == 1 else 'are'} durable after {cause}"
    if fault.property == "nothing_lost":
        return f"safe only if {fault.name} is acknowledged after {cause} {verb} durable"
    return f"safe only if {cause} {verb} durable before {fault.name} can be seen"


def _give_back(
    disk: Disk,
    profile: Profile,
    choice: SurvivingChanges,
    is_bad: Callable[[SurvivingChanges], bool],
) -> SurvivingChanges:
    found = choice
    again = True
    while again:
        again = False
        for number in list(found.versions):
            if not _is_damaged(disk, found, number):
                continue
            whole = profile.versions(disk.logs[number], found.kept, disk.journal)[0]
            versions = {**found.versions, number: whole}
            trial = SurvivingChanges(kept=found.kept, versions=versions)
            if whole != found.versions[number] and is_bad(trial):
                found, again = trial, True
        for change in disk.journal:
            if change.serial in found.kept:
                continue
            trial = SurvivingChanges(kept=found.kept | {change.serial}, versions=found.versions)
            if profile.is_possible(trial.kept, disk.journal) and is_bad(trial):
                found, again = trial, True
    return found


def _take_away(
    disk: Disk,
    profile: Profile,
    choice: SurvivingChanges,
    is_bad: Callable[[SurvivingChanges], bool],
) -> SurvivingChanges:
    found = choice
    for change in reversed(disk.journal):
        trial = SurvivingChanges(kept=found.kept - {change.serial}, versions=found.versions)
        possible = profile.is_possible(trial.kept, disk.journal)
        if change.serial in found.kept and possible and is_bad(trial):
            found = trial
    if profile.name == "ordered" and found.kept:
        # Of a kept beginning, only the last change exposes: the ones before it come with it.
        newest = max(one.serial for one in disk.journal if one.serial in found.kept)
        return SurvivingChanges(kept=frozenset({newest}), versions=found.versions)
    return found


def _is_damaged(disk: Disk, choice: SurvivingChanges, number: int) -> bool:
    return choice.versions[number] != disk.logs[number].now()


def _describe_file(disk: Disk, log: FileLog, version: Version) -> str:
    pending = log.changes[log.lasting :]
    path = disk.files.path_of(log.number) or pending[-1].operation.path
    return f"the data of {path} {_where(pending, version.describe(log.lasting))}"


def _where(changes: Sequence[JournalEntry], state: str = "") -> str:
    first, last = changes[0].operation, changes[-1].operation
    word = f"operation {first.index}"
    if first.index != last.index:
        word = f"operations {first.index} to {last.index}"
    return f"(rank {last.rank}, {word}{', ' if state else ''}{state})"
