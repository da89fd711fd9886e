"""Lists the points of a baseline trace that are to be struck, and finds equal ones.

Two points are equal only if they are the same place in the program of one thread and the same
instant of the baseline trace (`instants`). For `kill_all` these are the points before and after an
operation that changed nothing, and the points after one operation and before the thread's next one
if nothing happened in between. For `kill`, the surviving ranks could notice whether the killed one
has answered them in between, so only the first kind is equal. Points of a power cut are equal like
those of `kill_all`, but never across a sync, whatever it seemed to change. For failures no two
points are equal.

Of equal points the last is struck: it is only reached when all the others are.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from harness.evidence.evidence import RunEvidence
from harness.evidence.operation import Operation
from harness.faults.answers import meets
from harness.faults.point import Point
from harness.judge.outcome import Outcome
from harness.run.strikes import Occasion, matches
from harness.scenario.exploration import Explore, ExploredFault
from harness.search.explore.instants import Instants
from harness.words import READS

Same = tuple[object, ...]

# Tokens that are random in each run: hexadecimal ones, and those of the module `tempfile`.
_DRAWN = re.compile(r"(?<![0-9a-z])(?:[0-9a-f]{8,}|tmp[0-9a-z_]{8})(?![0-9a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A fault and where it can strike. Candidates with the same value of `same` are equal."""

    fault: ExploredFault
    at: Point
    same: Same


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenPoints:
    """The chosen points, and their total.

    `broken` is what the baseline breaks although nothing strikes it, and `outcome` its outcome.
    """

    operations: int
    points: int
    distinct: int
    chosen: tuple[Candidate, ...]
    broken: tuple[str, ...] = ()
    outcome: Outcome = Outcome.PASS

    @property
    def is_exhaustive(self) -> bool:
        """Whether every distinct point is struck."""
        return len(self.chosen) == self.distinct


def choose(
    explore: Explore, run: RunEvidence, instants: Instants, *, size: int, merge: bool = True
) -> ChosenPoints:
    """Choose points of a baseline trace of `size` ranks; with `merge`, equal ones only once."""
    operations = [one for one in run.operations if _is_meant(explore, one)]
    if explore.strikes == "nth_failure":
        found = _nth(explore, operations, size)
    else:
        found = list(_every(explore, run, operations, instants))
    distinct = list({one.same: one for one in found}.values()) if merge else found
    chosen = distinct
    if explore.budget is not None and explore.budget < len(distinct):
        drawn = random.Random(explore.seed).sample(range(len(distinct)), explore.budget)
        chosen = [distinct[number] for number in sorted(drawn)]
    return ChosenPoints(
        operations=len(operations),
        points=len(found),
        distinct=len(distinct),
        chosen=tuple(chosen),
    )


def nth_of_rank(explore: Explore, fault: ExploredFault, rank: int, nth: int) -> Candidate:
    """Returns the n-th operation of a rank that could fail with the error."""
    at = Point(rank=rank, operation=explore.operation, path="*", nth=nth)
    return Candidate(fault=fault, at=at, same=(fault, rank, nth))


def address(operation: Operation, operations: tuple[Operation, ...]) -> Point:
    """Returns how a scenario names an operation, so that another run finds it again."""
    first = Point(
        rank=operation.rank,
        save=operation.save,
        phase=operation.phase if operation.save is not None else None,
        operation=operation.kind,
        path=_pattern(operation.path),
    )
    earlier = sum(
        matches(first, _occasion(one)) for one in operations if one.index < operation.index
    )
    return first.model_copy(update={"nth": earlier + 1})


def _is_meant(explore: Explore, operation: Operation) -> bool:
    return (
        (not explore.ranks or operation.rank in explore.ranks)
        and (not explore.phases or operation.phase in explore.phases)
        and explore.operation in (None, operation.kind)
        and operation.kind not in READS
    )


def _nth(explore: Explore, operations: list[Operation], size: int) -> list[Candidate]:
    # A named operation can fail with any error, as in a scenario that names it.
    able = [one for one in operations if explore.operation or meets(explore.error, one.kind)]
    counts = Counter(one.rank for one in able)
    return [
        nth_of_rank(explore, fault, rank, nth)
        for fault in explore.chosen_faults
        for rank in explore.ranks or range(size)
        for nth in range(1, counts[rank] + 1)
    ]


def _every(
    explore: Explore, run: RunEvidence, operations: list[Operation], instants: Instants
) -> Iterator[Candidate]:
    syncs = _count_syncs(run.operations)
    for fault in explore.chosen_faults:
        for operation in operations:
            at = address(operation, run.operations)
            if fault in ("fail_once", "fail_lasting"):
                if explore.operation or meets(explore.error, operation.kind):
                    yield Candidate(fault=fault, at=at, same=(fault, operation.index))
                continue
            for late, numbers in enumerate((instants.before, instants.after)):
                same = _same(fault, operation, numbers[operation.index])
                if fault == "power_cut":
                    same = (*same, syncs[operation.index + late])
                when = "after" if late else "before"
                yield Candidate(fault=fault, at=at.model_copy(update={"when": when}), same=same)


def _same(fault: ExploredFault, operation: Operation, instant: int) -> Same:
    all_die = fault in ("kill_all", "power_cut")
    place: Literal["any"] | int = "any" if all_die else operation.index
    return (fault, operation.rank, operation.thread, place, instant)


def _count_syncs(operations: tuple[Operation, ...]) -> list[int]:
    """Returns how many syncs there were before each operation, and in all.

    On a real file system a sync can make more durable than the judges' model knows.
    """
    syncs = (one.kind in ("fsync", "sync") and one.error == 0 for one in operations)
    return list(accumulate(syncs, initial=0))


def _pattern(path: str) -> str:
    parts, end = [], 0
    for drawn in _DRAWN.finditer(path):
        # Not `*`, which would also match the files of a directory with a random name.
        parts += [_literally(path[end : drawn.start()]), "?" * len(drawn[0])]
        end = drawn.end()
    return "".join([*parts, _literally(path[end:])])


def _literally(text: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", text)


def _occasion(operation: Operation) -> Occasion:
    return Occasion(
        rank=operation.rank,
        kind=operation.kind,
        path=operation.path,
        target=operation.target,
        save=operation.save,
        phase=operation.phase,
    )
