"""Runs told by hand that end with a power cut, and what lies on the disk then."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness.disk.tree import FileSystem
from harness.evidence.cut import cut_operation, read_entries
from harness.evidence.evidence import Cut, Evidence
from harness.faults.power_cut import PowerCut, PowerCutting
from tests.harness.judge.cases import Case, RunCase


class _Described:
    """Adds to the bytes that a case has written."""

    def __init__(self, written: bytearray) -> None:
        self._written = written

    def __len__(self) -> int:
        return len(self._written)

    def add(self, data: bytes) -> int:
        self._written += data
        return len(self._written) - len(data)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def end_with_cut(run: RunCase, left: Path) -> None:
    """Let the power go behind all that was told, and leave what lies in a folder."""
    place = len(run.operations)
    run.fired = [dataclasses.replace(one, index=place) for one in run.fired]
    run.strikes = [
        one.model_copy(update={"fault": PowerCut(power_cut=PowerCutting(), at=one.point)})
        for one in run.strikes
    ]
    described = _Described(run.written)
    entries = read_entries(left, described)
    cut = cut_operation(entries, described, index=len(run.operations), rank=-1, time_s=1.0)
    run.operations.append(cut)


def evidence_of(case: Case, *, proven: bool = True) -> Evidence:
    """The evidence of a case whose first run ended with a cut."""
    evidence = case.evidence()
    files, first = FileSystem(), evidence.runs[0]
    for operation in first.operations[:-1]:
        files.apply(operation, first.written)
    cut = Cut(filesystem="ext4", journal="lost", how="it was told", before=files.snapshot())
    if proven:
        first = dataclasses.replace(first, cut=cut)
    return dataclasses.replace(evidence, runs=(first, *evidence.runs[1:]))


def materialize(run: RunCase, folder: Path) -> Path:
    """Write what the operations so far come to below a folder."""
    files = FileSystem()
    for operation in run.operations:
        files.apply(operation, bytes(run.written))
    _write_tree(files, folder)
    return folder


def _write_tree(files: FileSystem, folder: Path) -> None:
    folder.mkdir()
    for path, entry in files.snapshot().items():
        place = folder / path
        if entry.kind == "directory":
            place.mkdir()
        elif entry.kind == "symlink":
            place.symlink_to(entry.detail)
        else:
            node = files.find(path)
            place.write_bytes(node.content.read())  # type: ignore[union-attr]
