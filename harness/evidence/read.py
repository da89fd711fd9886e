"""Reads a run directory back into evidence, even long after the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.evidence.evidence import (
    BEFORE,
    GIVEN,
    RESULT,
    WRITTEN,
    AtRest,
    CommandResult,
    Cut,
    DirectoryEntry,
    Done,
    Evidence,
    Processes,
    RunEvidence,
    StartingDirectory,
    changed_folder,
)
from harness.evidence.operation import Fired, Operation
from harness.evidence.record import Record, read_record
from harness.evidence.store import StoredBytes
from harness.plan.model import EXECUTED, Plan
from harness.system.stacks import read_stacks, stacks_of


def read_evidence(directory: Path) -> Evidence:
    """Returns the evidence in a run directory, without runs that never started."""
    plan = Plan.model_validate_json((directory / "plan.json").read_text(encoding="utf-8"))
    runs: list[RunEvidence] = []
    while (directory / f"run{len(runs)}" / "processes.json").exists():
        ranks = plan.workload_of(len(runs)).world.size
        runs.append(_read_run(directory / f"run{len(runs)}", ranks))
    return Evidence(
        directory=str(directory),
        plan=plan,
        reference=read_event_logs(directory / "reference", plan.workload.world.size),
        runs=tuple(runs),
        at_rest={
            number: _read_at_rest(directory / f"run{number}")
            for number in range(len(plan.runs))
            if (directory / f"run{number}" / "before.json").exists()
        },
        changed={
            number: read_event_logs(
                directory / changed_folder(number), plan.workload_of(number).world.size
            )
            for number in range(len(runs))
            if (directory / changed_folder(number)).exists()
        },
        given=_read_given(directory) if plan.past else None,
        executed=tuple(sorted(path.name for path in (directory / EXECUTED).glob("*"))),
    )


def _read_at_rest(folder: Path) -> AtRest:
    value = json.loads((folder / "before.json").read_text(encoding="utf-8"))
    return AtRest(
        done=tuple(_read_done(one) for one in value["done"]),
        written=StoredBytes(folder / BEFORE),
        after=_entries(value["after"]),
        behind=_entries(value["behind"]),
    )


def _read_given(directory: Path) -> StartingDirectory:
    value = json.loads((directory / "given.json").read_text(encoding="utf-8"))
    return StartingDirectory(operation=Operation(**value), written=StoredBytes(directory / GIVEN))


def _read_done(value: dict[str, Any]) -> Done:
    operations = tuple(Operation(**one) for one in value["operations"])
    return Done(**{**value, "paths": tuple(value["paths"]), "operations": operations})


def _entries(value: dict[str, Any]) -> dict[str, DirectoryEntry]:
    return {name: DirectoryEntry(**entry) for name, entry in value.items()}


def read_event_logs(folder: Path, ranks: int) -> tuple[tuple[Record, ...], ...]:
    """Returns the records of each rank, in the order in which the rank wrote them."""
    return tuple(_read_event_log(folder / f"rank{rank}.jsonl") for rank in range(ranks))


def _read_event_log(path: Path) -> tuple[Record, ...]:
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    # A rank killed in the middle of a line leaves no newline; half a record says nothing.
    return tuple(read_record(line) for line in lines if line.endswith("\n"))


def _read_run(folder: Path, ranks: int) -> RunEvidence:
    operations: list[Operation] = []
    fired: list[Fired] = []
    places: list[list[int]] = [[] for _ in range(ranks)]
    unseen: tuple[str, ...] = ()
    for line in (folder / "trace.jsonl").read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        match value["kind"]:
            case "operation":
                operations.append(Operation(**value["operation"]))
            case "fired":
                item = value["fired"]
                fired.append(Fired(**{**item, "ranks": tuple(item["ranks"])}))
            case "records":
                places = value["places"]
            case "unseen":
                unseen = tuple(value["texts"])
    event_logs = tuple(
        _placed(event_log, places[seat])
        for seat, event_log in enumerate(read_event_logs(folder, len(places)))
    )
    behind = folder / "behind.json"
    return RunEvidence(
        operations=tuple(operations),
        fired=tuple(fired),
        unseen=unseen,
        written=StoredBytes(folder / WRITTEN),
        event_logs=event_logs[:ranks],
        second=event_logs[ranks:],
        processes=read_processes(folder),
        after=_read_entries(folder / "after.json"),
        behind=_read_entries(behind) if behind.exists() else {},
        cut=_read_cut(folder / "cut.json"),
        stacks={
            rank: text for rank in range(ranks) if (text := read_stacks(stacks_of(folder, rank)))
        },
        result=_read_result(folder / RESULT),
    )


def _read_result(path: Path) -> CommandResult | None:
    if not path.exists():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))
    lists = {name: tuple(value[name]) for name in ("differences", "not_judged")}
    return CommandResult(**{**value, **lists})


def _read_cut(path: Path) -> Cut | None:
    if not path.exists():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))
    return Cut(**{**value, "before": _entries(value["before"])})


def _read_entries(path: Path) -> dict[str, DirectoryEntry]:
    return _entries(json.loads(path.read_text(encoding="utf-8")))


def _placed(event_log: tuple[Record, ...], places: list[int]) -> tuple[Record, ...]:
    return tuple(
        replace(record, index=place) for record, place in zip(event_log, places, strict=False)
    )


def read_processes(folder: Path) -> Processes:
    """Returns how the processes of one run ended."""
    value: dict[str, Any] = json.loads((folder / "processes.json").read_text(encoding="utf-8"))
    lists = {key: tuple(item) for key, item in value.items() if isinstance(item, list)}
    return Processes(**{**value, **lists})
