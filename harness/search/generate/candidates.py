"""Candidate injection points of a baseline trace: operations to strike, files to damage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.evidence.evidence import Evidence
from harness.evidence.operation import Operation
from harness.faults.point import Point
from harness.layouts.base import Layout
from harness.search.explore.points import address


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatePoint:
    """One operation, in the two ways in which a scenario can name it.

    `counted` names no path, so that it fits a run that saves other steps; None outside of a save.
    """

    named: Point
    counted: Point | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """All operations, and the files of a checkpoint as patterns below its directory.

    `leftovers` are the kinds that a dead run of this implementation could leave. Everything is
    sorted, because the ranks of two baseline traces never interleave in the same way.
    """

    layout: Layout
    candidates: tuple[CandidatePoint, ...]
    files: tuple[str, ...]
    leftovers: tuple[str, ...]

    @property
    def saves(self) -> int:
        """Returns how many saves the run had."""
        return max((one.counted.save or 0 for one in self.candidates if one.counted), default=0)

    def of_save(self, save: int) -> tuple[CandidatePoint, ...]:
        """Returns the points of one save."""
        return tuple(one for one in self.candidates if one.counted and one.counted.save == save)

    def outside_of_saves(self) -> tuple[CandidatePoint, ...]:
        """Returns the points outside of saves, such as in the constructor of a manager."""
        return tuple(one for one in self.candidates if one.counted is None)


def read_candidates(evidence: Evidence) -> Candidates:
    """Returns the candidates of the first run of a baseline trace."""
    run, layout = evidence.runs[0], evidence.plan.layout
    found = dict.fromkeys(_offers(run.operations))
    return Candidates(
        layout=layout,
        candidates=tuple(sorted(found, key=lambda one: one.named.model_dump_json())),
        files=_files(run.after, layout),
        leftovers=tuple(_leftovers(run.operations, layout)),
    )


def _offers(operations: tuple[Operation, ...]) -> Iterator[CandidatePoint]:
    seen: Counter[Point] = Counter()
    for one in operations:
        counted = None
        if one.save is not None:
            first = Point(rank=one.rank, save=one.save, phase=one.phase, operation=one.kind)
            seen[first] += 1
            counted = first.model_copy(update={"nth": seen[first]})
        yield CandidatePoint(named=address(one, operations), counted=counted)


def _files(names: Iterable[str], layout: Layout) -> tuple[str, ...]:
    """Returns the files of the newest checkpoint; one pattern stands for all shards."""
    steps = {step for name in names if (step := layout.step_of(name)) is not None}
    if not steps:
        return ()
    top = f"{layout.name_of(max(steps))}/"
    inside = [name.removeprefix(top) for name in names if name.startswith(top)]
    files = {layout.pattern_of(name) for name in inside if "." in name}
    return tuple(sorted(files))


def _leftovers(operations: tuple[Operation, ...], layout: Layout) -> Iterator[str]:
    given = [one for one in operations if one.kind == "rename" and one.target and not one.error]
    if any(layout.step_of(one.target or "") is not None for one in given):
        yield "staging"
    if any(one.target == layout.pointer for one in given):
        yield "link"
