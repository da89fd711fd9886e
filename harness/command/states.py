"""The distinct states in which one watched run of a command can leave its directory.

    killed   what the next process finds if every process of the command dies after an operation
    torn     the same in the middle of a write: its first half is there
    power    what a power cut can leave, by the models of `harness.disk.profiles`

Equal directories are one state, however many instants they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Literal

from harness.content import Bytes
from harness.crash.choose import choose, everything
from harness.disk.changes import DataChange, Version
from harness.disk.disk import Disk
from harness.disk.profiles import PROFILES, ProfileName
from harness.disk.state import Parts, SurvivingChanges
from harness.evidence.operation import Operation

Kind = Literal["killed", "torn", "power"]

_MOST_AN_INSTANT = 8
"""At most so many states of a power cut at one instant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftState:
    """A directory, and the first instant that leaves it: after `place` operations, or, if it is
    torn, in the last of them."""

    kind: Kind
    place: int
    tree: int
    parts: Parts
    operation: Operation | None
    """The last operation; None for the state before the first one."""

    @property
    def digest(self) -> str:
        """A digest that is equal for equal directories."""
        return self.parts.digest(self.tree)

    def describe(self) -> str:
        """Describes the instant, as part of a sentence."""
        if self.operation is None:
            return "before the first operation"
        what = f"{self.operation.kind} {self.operation.path}"
        what += f" -> {self.operation.target}" if self.operation.target else ""
        if self.kind == "torn":
            return f"killed half-way through operation {self.place}, {what}"
        how = "power cut" if self.kind == "power" else "killed"
        return f"{how} after operation {self.place}, {what}"


def states_of(operations: Sequence[Operation], written: Bytes, *, seed: int = 0) -> list[LeftState]:
    """Returns the distinct states: those of kills first, then of torn writes and power cuts."""
    seen: set[str] = set()
    found: list[LeftState] = []
    killed = list(_killed(operations, written))
    killed.sort(key=lambda state: state.kind == "torn")
    profiles: tuple[ProfileName, ...] = ("ordered", "posix")
    cuts = (one for name in profiles for one in _power(operations, written, name, seed))
    for state in chain(killed, cuts):
        if state.digest not in seen:
            seen.add(state.digest)
            found.append(state)
    return found


def in_order_of_interest(states: Sequence[LeftState]) -> list[LeftState]:
    """Returns the states so that any beginning of the list covers the whole run.

    The states of each kind are halved again and again; kills come first where they are fewer.
    """
    kinds: dict[Kind, list[LeftState]] = {"killed": [], "torn": [], "power": []}
    for state in states:
        kinds[state.kind].append(state)
    ranked = [
        ((number + 0.5) / len(same), state)
        for same in kinds.values()
        for number, state in enumerate(_halved(same))
    ]
    return [state for _, state in sorted(ranked, key=lambda one: one[0])]


def _halved(states: Sequence[LeftState]) -> list[LeftState]:
    """Returns the states in the order in which repeated halving meets them."""
    found, waiting = [], [(0, len(states))]
    for first, last in waiting:
        if first < last:
            middle = (first + last) // 2
            found.append(states[middle])
            waiting += [(first, middle), (middle + 1, last)]
    return found


def _killed(operations: Sequence[Operation], written: Bytes) -> Iterator[LeftState]:
    disk = Disk(PROFILES["posix"])
    parts = Parts(disk)

    def state(kind: Kind, place: int, operation: Operation | None, tree: int) -> LeftState:
        return LeftState(kind=kind, place=place, tree=tree, parts=parts, operation=operation)

    yield state("killed", 0, None, parts.state(everything(disk)))
    for place, operation in enumerate(operations, 1):
        change = disk.apply(0, operation, written)
        if change is None:
            continue
        whole = everything(disk)
        if isinstance(change, DataChange) and change.data is not None and change.size > 1:
            torn = SurvivingChanges(kept=whole.kept, versions=_half_of_last(disk, change))
            yield state("torn", place, operation, parts.state(torn))
        yield state("killed", place, operation, parts.state(whole))


def _half_of_last(disk: Disk, change: DataChange) -> dict[int, Version]:
    """Returns the version of the file that was written last, with half of that write."""
    log = next(one for one in disk.dirty.values() if one.changes and one.changes[-1] is change)
    upto = len(log.changes)
    at = change.offset + change.size // 2
    return {log.number: Version(log.number, upto, base=upto - 1, damage="torn", at=at)}


def _power(
    operations: Sequence[Operation], written: Bytes, name: ProfileName, seed: int
) -> Iterator[LeftState]:
    profile = PROFILES[name]
    disk, chance = Disk(profile), Random(seed)
    parts = Parts(disk)
    for place, operation in enumerate(operations, 1):
        change = disk.apply(0, operation, written)
        if change is None:
            continue
        for choice in choose(disk, profile, change, chance, _MOST_AN_INSTANT).found:
            yield LeftState(
                kind="power",
                place=place,
                tree=parts.state(choice),
                parts=parts,
                operation=operation,
            )
