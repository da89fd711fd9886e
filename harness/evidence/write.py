"""Writes what a run left behind. `evidence.py` describes the layout of the folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from harness.evidence.evidence import (
    RESULT,
    WRITTEN,
    AtRest,
    CommandResult,
    Cut,
    DirectoryEntry,
    Processes,
    RunEvidence,
)
from harness.evidence.operation import Fired, Operation


def write_trace(
    folder: Path,
    operations: Sequence[Operation],
    fired: Sequence[Fired],
    record_places: Sequence[Sequence[int]],
    unseen: Sequence[str],
) -> None:
    """Write the trace of one run. `record_places[rank]` has the position of each record."""
    lines: list[dict[str, object]] = [
        {"kind": "operation", "operation": item._asdict()} for item in operations
    ]
    lines += [{"kind": "fired", "fired": asdict(item)} for item in fired]
    lines.append({"kind": "records", "places": [list(places) for places in record_places]})
    lines.append({"kind": "unseen", "texts": list(unseen)})
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (folder / "trace.jsonl").write_text(text, encoding="utf-8")


def write_processes(folder: Path, processes: Processes) -> None:
    """Write how the processes of one run ended."""
    (folder / "processes.json").write_text(json.dumps(asdict(processes)), encoding="utf-8")


def write_result(folder: Path, result: CommandResult) -> None:
    """Write how the result of one start of a command compares."""
    (folder / RESULT).write_text(json.dumps(asdict(result)), encoding="utf-8")


def write_listing(folder: Path, checkpoints: Path, *, name: str = "after") -> None:
    """Write the present contents of a directory."""
    entries = _as_value(list_entries(checkpoints))
    (folder / f"{name}.json").write_text(json.dumps(entries), encoding="utf-8")


def write_cut(folder: Path, cut: Cut) -> None:
    """Write the state in which a power cut found the directory."""
    (folder / "cut.json").write_text(json.dumps(asdict(cut)), encoding="utf-8")


def write_given(directory: Path, listing: Operation) -> None:
    """Write what a plan begins with; its bytes are in the directory already."""
    (directory / "given.json").write_text(json.dumps(listing._asdict()), encoding="utf-8")


def write_past(folder: Path, run: RunEvidence) -> None:
    """Write a run that took place elsewhere: the records of its ranks, and how it ended."""
    write_trace(
        folder,
        (),
        run.fired,
        [[one.index for one in event_log] for event_log in run.event_logs],
        (),
    )
    for rank, event_log in enumerate(run.event_logs):
        text = "".join(record.to_line() + "\n" for record in event_log)
        (folder / f"rank{rank}.jsonl").write_text(text, encoding="utf-8")
    (folder / WRITTEN).touch()
    write_processes(folder, run.processes)
    (folder / "after.json").write_text("{}", encoding="utf-8")


def write_at_rest(folder: Path, at_rest: AtRest) -> None:
    """Write what was done before a run; the bytes that came with it lie in the folder already."""
    value = {
        "done": [
            {**asdict(one), "operations": [made._asdict() for made in one.operations]}
            for one in at_rest.done
        ],
        "after": _as_value(at_rest.after),
        "behind": _as_value(at_rest.behind),
    }
    (folder / "before.json").write_text(json.dumps(value), encoding="utf-8")


def _as_value(entries: Mapping[str, DirectoryEntry]) -> dict[str, object]:
    return {path: asdict(entry) for path, entry in entries.items()}


def list_entries(directory: Path) -> dict[str, DirectoryEntry]:
    """Returns every name below a directory; none if it does not exist."""
    found: dict[str, DirectoryEntry] = {}
    for place, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = Path(place, name)
            found[str(path.relative_to(directory))] = _entry(path)
    return found


def _entry(path: Path) -> DirectoryEntry:
    if path.is_symlink():
        # Not Path.readlink, which normalizes the text: "./step_2/" and "step_2" differ.
        return DirectoryEntry(kind="symlink", detail=os.readlink(path))  # noqa: PTH115
    if path.is_dir():
        return DirectoryEntry(kind="directory", detail="")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return DirectoryEntry(kind="file", detail=digest.hexdigest())
