"""Results as text for people and as JSON for programs.

Names can contain anything, so control characters are printed as escapes (``\\x1b``).
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kempnerforge.cli.checking import Checked, CheckedDirectory
from kempnerforge.cli.cleaning import clean
from kempnerforge.cli.comparing import Difference
from kempnerforge.cli.listing import Listing, Row, Sheet
from kempnerforge.cli.mending import Repair, Retention, Step

__all__ = ["SCHEMA", "as_json", "as_text", "clean"]

SCHEMA = 1
"""Version of the JSON output; adding a key does not change it."""

_NOTHING = "nothing is changed until it can be read, because it may be whole"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

Result = Listing | Sheet | Checked | CheckedDirectory | Difference | Repair | Retention


def as_json(command: str, result: Result, *, exit_status: int, applied: bool | None) -> str:
    """Returns one object with the fields of the result and four keys about the command."""
    about: dict[str, Any] = {"schema": SCHEMA, "command": command, "exit": exit_status}
    if applied is not None:
        about["applied"] = applied
    return json.dumps({**about, **dataclasses.asdict(result)}, indent=2)


def as_text(result: Result, *, applied: bool | None) -> str:
    """Returns lines for people to read."""
    return "\n".join(clean(line) for line in _lines(result, applied=bool(applied)))


def _lines(result: Result, *, applied: bool) -> Iterator[str]:
    match result:
        case Listing():
            return _listing(result)
        case Sheet():
            return _sheet(result)
        case Checked():
            return _checked(result)
        case CheckedDirectory():
            return _checked_directory(result)
        case Difference():
            return _difference(result)
        case Repair():
            return _repair(result, applied=applied)
        case Retention():
            return _retention(result, applied=applied)


def _listing(listing: Listing) -> Iterator[str]:
    if not listing.rows:
        yield f"{listing.directory}: no checkpoints"
    else:
        header = ("NAME", "STATE", "SIZE", "SAVE ID", "WORLD", "STAGES", "TOKENS", "WRITTEN (UTC)")
        yield from _table([header, *map(_cells, listing.rows)])
    for row in listing.rows:
        if row.problem is not None:
            yield f"{row.name}: {row.problem}"
        yield from (f"{row.name}: not read: {reason}" for reason in row.unreadable)
    if listing.latest.problem is not None:
        yield f"latest -> {listing.latest.target or '?'}: {listing.latest.problem}"
    if listing.latest.unreadable is not None:
        yield f"latest -> {listing.latest.target or '?'}: {listing.latest.unreadable}"
    if listing.latest.note is not None:
        yield f"latest -> {listing.latest.target}: {listing.latest.note}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name + (" <- latest" if row.latest else ""),
        row.state,
        _bytes(row.bytes),
        row.save_id or "-",
        _known(row.world_size),
        "-" if row.stages is None else str(len(row.stages)),
        _known(row.tokens_seen),
        "-" if row.written is None else row.written[:19].replace("T", " "),
    )


def _known(value: int | None) -> str:
    return "-" if value is None else str(value)


def _bytes(size: int) -> str:
    value, unit = float(size), 0
    while value >= 1024 and unit + 1 < len(_UNITS):
        value, unit = value / 1024, unit + 1
    return f"{size} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    rows = [tuple(map(clean, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _sheet(sheet: Sheet) -> Iterator[str]:
    row = sheet.row
    yield f"{row.name}: {row.state}{', latest names it' if row.latest else ''}, {_bytes(row.bytes)}"
    if row.problem is not None:
        yield f"  problem: {row.problem}"
    yield from _mapping("manifest", sheet.manifest or {})
    yield from _mapping("metadata.json", sheet.metadata)
    yield "files"
    hidden = {reason.partition(": ")[0] for reason in sheet.unreadable}
    cells = [
        (f"  {name}", *_file_cells(file, seen=name not in hidden))
        for name, file in sheet.files.items()
    ]
    yield from _table(cells)
    yield from _named("not read", dict.fromkeys((*row.unreadable, *sheet.unreadable)))


def _mapping(title: str, values: Mapping[str, Any]) -> Iterator[str]:
    if values:
        yield title
        yield from (f"  {key}: {json.dumps(value)}" for key, value in values.items())


def _file_cells(file: Mapping[str, int | str | None], *, seen: bool) -> tuple[str, str, str]:
    size, expected, crc32 = file["bytes"], file["expected"], file["crc32"]
    there = f"{size} B" if size is not None else "missing" if seen else "not read"
    wanted = "" if expected in (None, size) else f"expected {expected} B"
    return there, f"crc32 {crc32}" if crc32 else "not in the manifest", wanted


def _checked(checked: Checked) -> Iterator[str]:
    verdict = "BROKEN" if checked.problems else "whole" if checked.whole else "UNKNOWN"
    yield f"{checked.name}: {verdict} (by {checked.level}; {checked.state})"
    yield from (f"  problem: {problem}" for problem in checked.problems)
    yield from (f"  not read: {reason}" for reason in checked.unreadable)
    yield from (f"  note: {note}" for note in checked.notes)


def _checked_directory(found: CheckedDirectory) -> Iterator[str]:
    for checked in found.checkpoints:
        yield from _checked(checked)
    yield from (f"note: {note}" for note in found.notes)
    if found.latest.problem is not None:
        yield f"latest -> {found.latest.target or '?'}: BROKEN: {found.latest.problem}"
    elif found.latest.unreadable is not None:
        yield f"latest -> {found.latest.target or '?'}: UNKNOWN: {found.latest.unreadable}"
    elif found.latest.target is not None:
        yield f"latest -> {found.latest.target}"
    if found.latest.note is not None:
        yield f"  note: {found.latest.note}"


def _difference(found: Difference) -> Iterator[str]:
    yield from _named("tensor only in B", found.tensors_added)
    yield from _named("tensor only in A", found.tensors_removed)
    yield from _pairs("tensor", found.tensors_changed)
    yield from _named("file only in B", found.files_added)
    yield from _named("file only in A", found.files_removed)
    yield from _named("file differs", found.files_changed)
    yield from _pairs("metadata", found.metadata)
    yield from _pairs("frozen", found.freeze)
    yield from _named("cannot be compared", found.problems)
    yield from _named("not read", found.unreadable)
    content = "the same content" if found.same_content else "different content"
    if found.unreadable and not found.differs:
        content = "the same content as far as it could be read"
    yield f"{content} (compared by {found.compared_by})"


def _named(title: str, names: Iterable[str]) -> Iterator[str]:
    return (f"{title}: {name}" for name in names)


def _pairs(title: str, pairs: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    return (f"{title} {name}: {one} -> {other}" for name, (one, other) in pairs.items())


def _repair(repair: Repair, *, applied: bool) -> Iterator[str]:
    yield from _named("problem", repair.problems)
    yield from _named("note", repair.notes)
    yield from _named("not read", repair.unreadable)
    yield from _steps(repair.steps, applied=applied)
    if repair.unreadable:
        yield _NOTHING
    elif not repair.mended:
        yield "no checkpoint verifies; there is nothing to resume from"
    elif not repair.steps:
        yield "nothing to repair"


def _retention(retention: Retention, *, applied: bool) -> Iterator[str]:
    yield from _named("keep", retention.kept)
    yield from _named("left alone", retention.ignored)
    yield from _named("not read", retention.unreadable)
    yield from _steps(retention.steps, applied=applied)
    if retention.unreadable:
        yield _NOTHING
    elif not retention.steps:
        yield "nothing to delete"


def _steps(steps: Sequence[Step], *, applied: bool) -> Iterator[str]:
    done = "done" if applied else "would"
    for step in steps:
        arrow = "" if step.target is None else f" -> {step.target}"
        yield f"{done}: {step.action} {step.name}{arrow} ({step.reason})"
    if steps and not applied:
        yield "dry run: nothing was changed; --apply makes the changes"
