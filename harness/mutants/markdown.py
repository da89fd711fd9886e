"""Formats the table as a page for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.mutants.catalogue import name_of
from harness.mutants.table import MutantRow, Table, problems
from harness.promises import describe_promises

BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"


def page(table: Table, head: Sequence[str]) -> str:
    """Returns all sections; `head` says when, where and by which command they were made."""
    sections = (
        head,
        _rate(table),
        ["### Bugs", "", *_bugs(table)],
        ["### Properties", "", *_properties(table)],
        ["### Categories", "", *_categories(table)],
        ["### Controls", "", *_control(table)],
        ["### Scenarios that catch nothing", "", *_silent(table)],
    )
    return "\n\n".join("\n".join(one).strip("\n") for one in sections) + "\n"


def write_page(path: Path, text: str) -> None:
    """Writes between the marks of a document, or a document of its own."""
    marked = f"{BEGIN}\n\n{text}\n{END}\n"
    if path.exists():
        old = path.read_text(encoding="utf-8")
        before, begin, rest = old.partition(BEGIN)
        _, end, after = rest.partition(END + "\n")
        if begin and end:
            marked = before + marked + after
    path.write_text(marked, encoding="utf-8")


def _rate(table: Table) -> Iterator[str]:
    caught = sum(bool(row.caught) for row in table.rows)
    named = sum(row.is_named for row in table.rows)
    others = [cell for row in table.rows for cell in row.others]
    red = sum(one.is_caught for one in others)
    managers = len({one.manager for one in table.correct})
    yield f"- {len(table.rows)} mutants: {caught} caught, {named} by what names them."
    yield f"- {len(table.scenarios)} scenarios: {len(table.silent)} caught none of these bugs."
    yield f"- {len(others)} cells of a bug in a scenario other than its own: {red} were red."
    yield f"- {managers} controls in {len(table.correct)} cells: {len(table.alarms)} accused."
    wrong = list(problems(table))
    if wrong:
        yield ""
        yield "Problems:"
        yield ""
        yield from (f"- {one}" for one in wrong)


def _bugs(table: Table) -> Iterator[str]:
    yield from _head(
        "bug",
        "source",
        "scenario",
        "outcome",
        "named by",
        "other scenarios",
        "broken",
    )
    for row in table.rows:
        yield _cells(
            f"`{name_of(row.bug.implementation)}`",
            row.bug.source or "-",
            f"`{row.bug.scenario}`",
            row.own.outcome if row.own else "not run",
            f"`{row.bug.caught_by}`" + ("" if row.is_named else ", **missed**"),
            _share(row),
            ", ".join(row.broken),
        )


def _share(*rows: MutantRow) -> str:
    others = [one for row in rows for one in row.others]
    red = sum(one.is_caught for one in others)
    return f"{red} of {len(others)}" if others else "-"


def _rate_of(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.0%})"


def _properties(table: Table) -> Iterator[str]:
    found = Counter(name for row in table.rows for name in row.broken)
    yield from _head("property or guard", "names", "broken by bugs in all", "for example")
    for name, bugs in table.by_property.items():
        yield _cells(f"`{name}`", str(len(bugs)), str(found[name]), ", ".join(bugs[:3]))


def _categories(table: Table) -> Iterator[str]:
    yield from _head("category", "bugs", "named", "found by other scenarios", "which")
    for name, rows in table.by_category.items():
        bugs = [name_of(row.bug.implementation) for row in rows]
        shown = ", ".join(bugs[:6]) + (f" and {len(bugs) - 6} more" if len(bugs) > 6 else "")
        named = sum(row.is_named for row in rows)
        yield _cells(name, str(len(bugs)), _rate_of(named, len(rows)), _share(*rows), shown)
    yield ""
    yield "Without a mutant:"
    yield ""
    yield from _head("which", "why")
    yield from (_cells(what, why) for what, why in table.catalogue.missing.items())


def _control(table: Table) -> Iterator[str]:
    yield from _head("manager", "scenarios", "accused", "promises", "leaves out")
    for one in table.catalogue.correct:
        cells = [cell for cell in table.correct if cell.manager == one.implementation]
        alarms = sum(cell.is_alarm for cell in cells)
        out = "; ".join(f"`{part}`: {why}" for part, why in one.leaves_out.items())
        yield _cells(
            f"`{name_of(one.implementation)}`",
            str(len(cells)),
            str(alarms),
            f"`{describe_promises(one.promises)}`",
            out or "nothing",
        )


def _silent(table: Table) -> Iterator[str]:
    yield from _head("scenario", "bugs tried", "why it stays")
    for name in table.silent:
        why = table.catalogue.why_quiet(name) or "**no reason given**"
        yield _cells(f"`{name}`", str(len(table.scenarios[name])), why)


def _head(*names: str) -> Iterator[str]:
    yield _cells(*names)
    yield _cells(*("---" for _ in names))


def _cells(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def one_line(rows: Iterable[MutantRow]) -> Iterator[str]:
    """Formats each bug on a line, for a terminal."""
    for row in rows:
        mark = "caught" if row.is_named else "MISSED"
        outcome = row.own.outcome if row.own else "not run"
        yield (
            f"{mark} {name_of(row.bug.implementation):<28} {row.bug.source or '-':<8} "
            f"{outcome} by {row.bug.caught_by} in {row.bug.scenario}; others: {_share(row)}"
        )
