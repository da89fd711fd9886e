"""Summarizes the cells: which bug was caught by which scenario, and so on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judge.properties import PROMISES
from harness.mutants.catalogue import Bug, Catalogue, name_of
from harness.mutants.cell import Key, MutantCell


@dataclass(frozen=True, slots=True, kw_only=True)
class MutantRow:
    """One bug: its own cell, and those of the other scenarios that it was run with."""

    bug: Bug
    own: MutantCell | None
    others: tuple[MutantCell, ...]

    @property
    def is_named(self) -> bool:
        """Whether its own scenario caught it by the property that names it."""
        return self.own is not None and self.own.is_caught and self.bug.caught_by in self.own.broken

    @property
    def caught(self) -> tuple[MutantCell, ...]:
        """The cells in which it was caught."""
        own = () if self.own is None else (self.own,)
        return tuple(one for one in (*own, *self.others) if one.is_caught)

    @property
    def broken(self) -> tuple[str, ...]:
        """Everything that caught it."""
        return tuple(sorted({name for cell in self.caught for name in cell.broken}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The results for a catalogue, over the existing default scenarios."""

    catalogue: Catalogue
    rows: tuple[MutantRow, ...]
    correct: tuple[MutantCell, ...]
    scenarios: Mapping[str, tuple[MutantCell, ...]]
    """The cells of bugs by scenario, including scenarios with none."""

    @property
    def alarms(self) -> tuple[MutantCell, ...]:
        """The cells in which a control was accused."""
        return tuple(one for one in self.correct if one.is_alarm)

    @property
    def silent(self) -> tuple[str, ...]:
        """The scenarios that have caught nothing."""
        return tuple(
            name
            for name, cells in self.scenarios.items()
            if not any(one.is_caught for one in cells)
        )

    @property
    def by_property(self) -> dict[str, tuple[str, ...]]:
        """The bugs that each property or guard names."""
        found: dict[str, list[str]] = {name: [] for name in PROMISES}
        for row in self.rows:
            if row.is_named:
                found.setdefault(row.bug.caught_by, []).append(name_of(row.bug.implementation))
        return {name: tuple(bugs) for name, bugs in found.items()}

    @property
    def by_category(self) -> dict[str, tuple[MutantRow, ...]]:
        """The bugs of each category."""
        found: dict[str, list[MutantRow]] = {}
        for row in self.rows:
            for category in row.bug.categories or ("none of the collection",):
                found.setdefault(category, []).append(row)
        return {name: tuple(found[name]) for name in sorted(found)}


def make_table(
    catalogue: Catalogue, cells: Mapping[Key, MutantCell], names: Sequence[str]
) -> Table:
    """Returns the table of what was run, restricted to existing scenarios."""
    bugs = {bug.implementation for bug in catalogue.bugs}
    there = set(names)
    scenarios: dict[str, list[MutantCell]] = {name: [] for name in names}
    for cell in cells.values():
        if cell.manager in bugs and cell.scenario in there:
            scenarios[cell.scenario].append(cell)
    correct = {one.implementation: one for one in catalogue.correct}
    return Table(
        catalogue=catalogue,
        rows=tuple(_row(bug, cells, there) for bug in catalogue.bugs),
        correct=tuple(
            cell
            for cell in cells.values()
            if cell.manager in correct
            and cell.scenario in there
            and correct[cell.manager].reason(cell.scenario) is None
        ),
        scenarios={name: tuple(found) for name, found in scenarios.items()},
    )


def _row(bug: Bug, cells: Mapping[Key, MutantCell], there: set[str]) -> MutantRow:
    key = (bug.implementation, bug.scenario)
    others = tuple(
        cell
        for cell in cells.values()
        if cell.manager == bug.implementation and cell.key != key and cell.scenario in there
    )
    return MutantRow(bug=bug, own=cells.get(key), others=others)


def problems(table: Table) -> Iterator[str]:
    """Yields what is wrong, one sentence each."""
    for row in table.rows:
        if not row.is_named:
            name = name_of(row.bug.implementation)
            got = "was not run" if row.own is None else _described(row.own)
            yield f"{name} is not caught by {row.bug.caught_by}: {row.bug.scenario} {got}"
        elif row.own is not None and row.own.outcome != row.bug.outcome:
            name = name_of(row.bug.implementation)
            yield f"{name} ends with {row.own.outcome}, the catalogue says {row.bug.outcome}"
    for cell in table.alarms:
        yield f"{name_of(cell.manager)} is correct, and {cell.scenario} {_described(cell)}"
    for name, bugs in table.by_property.items():
        if not bugs:
            yield f"{name} names no bug"
    for name in table.silent:
        if table.catalogue.why_quiet(name) is None:
            yield f"{name} catches nothing, and the catalogue gives no reason to keep it"


def _described(cell: MutantCell) -> str:
    broken = ", ".join(cell.broken) or "nothing"
    return f"ended with {cell.outcome} by {broken}" + (f": {cell.details}" if cell.details else "")
