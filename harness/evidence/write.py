"""Writing what a run left behind. The layout of the folder is described in `evidence.py`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.evidence.evidence import Entry, Processes
from harness.evidence.operation import Landed, Operation


def write_trace(
    folder: Path,
    operations: Sequence[Operation],
    landed: Sequence[Landed],
    record_places: Sequence[Sequence[int]],
    unseen: Sequence[str],
) -> None:
    """Write the trace of one run. `record_places[rank]` has the place of each record."""
    lines: list[dict[str, object]] = [
        {"kind": "operation", "operation": asdict(item)} for item in operations
    ]
    lines += [{"kind": "landed", "landed": asdict(item)} for item in landed]
    lines.append({"kind": "records", "places": [list(places) for places in record_places]})
    lines.append({"kind": "unseen", "texts": list(unseen)})
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (folder / "trace.jsonl").write_text(text, encoding="utf-8")


def write_bytes(folder: Path, written: bytes) -> None:
    """Write the bytes of all writes of one run."""
    (folder / "written.bin").write_bytes(written)


def write_processes(folder: Path, processes: Processes) -> None:
    """Write how the processes of one run ended."""
    (folder / "processes.json").write_text(json.dumps(asdict(processes)), encoding="utf-8")


def write_listing(folder: Path, checkpoints: Path) -> None:
    """Write what lies in the checkpoint directory now."""
    entries = {name: asdict(entry) for name, entry in _walk(checkpoints)}
    (folder / "after.json").write_text(json.dumps(entries), encoding="utf-8")


def _walk(checkpoints: Path) -> list[tuple[str, Entry]]:
    found = []
    for place, folders, files in os.walk(checkpoints):
        for name in (*folders, *files):
            path = Path(place, name)
            found.append((str(path.relative_to(checkpoints)), _entry(path)))
    return found


def _entry(path: Path) -> Entry:
    if path.is_symlink():
        # Not Path.readlink, which tidies the text: "./step_2/" is another text than "step_2".
        return Entry(kind="symlink", detail=os.readlink(path))  # noqa: PTH115
    if path.is_dir():
        return Entry(kind="directory", detail="")
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16)
    return Entry(kind="file", detail=digest.hexdigest())
