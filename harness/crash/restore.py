"""Puts a crash state on the disk, in a run directory that records how it came about.

The run directory holds the event log of the job up to the power cut, the cut as the one operation
of its last run, and the files that it left. The job can be started in it once more, and the
ordinary judges judge the whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import get_args

from harness.crash.changes import Version
from harness.crash.explore import CrashState
from harness.crash.state import Parts
from harness.evidence.cut import Listed, tell_cut
from harness.evidence.evidence import WRITTEN, Evidence, Processes, RunEvidence
from harness.evidence.operation import Fired
from harness.evidence.record import Record
from harness.evidence.store import ByteStore, Sink, add_all
from harness.evidence.write import write_listing, write_processes, write_trace
from harness.faults.base import Target
from harness.faults.kill import Kill
from harness.faults.point import Point
from harness.faults.strike import Strike
from harness.layouts.names import checkpoint_step
from harness.plan.model import Plan, RunPlan
from harness.scenario.launcher import LauncherSettings
from harness.scenario.schema import Expect, PropertyName

_SIGKILL = 9
_UNKNOWN = -1
"""The place of a record without a supervisor."""


def restore(state: CrashState, parts: Parts, evidence: Evidence, directory: Path) -> Plan:
    """Fill `directory`, which is created; returns the plan whose last run starts the job again."""
    plan = _plan(state, parts, evidence)
    (directory / "checkpoints").mkdir(parents=True)
    shutil.copytree(Path(evidence.directory) / "reference", directory / "reference")
    (directory / "plan.json").write_text(plan.model_dump_json(indent=1), encoding="utf-8")
    for number in range(state.run):
        _write_earlier(directory / f"run{number}", evidence.runs[number])
    write_tree(parts, state.tree, directory / "checkpoints")
    _write_cut(directory, state, parts, evidence, plan.runs[state.run].strikes)
    return plan


def write_tree(parts: Parts, number: int, target: Path) -> None:
    """Write the names in a directory, and everything below them, into the directory `target`."""
    for name, inner in parts.names(number):
        kind, value = parts.part(inner)
        place = target / name
        if isinstance(value, Version):
            with place.open("wb") as file:
                file.writelines(parts.content(value).chunks())
        elif isinstance(value, str):
            place.symlink_to(value)
        else:
            assert kind == "directory"
            place.mkdir()
            write_tree(parts, inner, place)


def list_tree(parts: Parts, number: int, into: Sink) -> tuple[Listed, ...]:
    """Returns the tree as an operation `cut` carries it; a directory precedes its contents."""
    return tuple(_list(parts, number, "", into))


def _list(parts: Parts, number: int, prefix: str, into: Sink) -> Iterator[Listed]:
    for name, inner in parts.names(number):
        kind, value = parts.part(inner)
        if isinstance(value, Version):
            yield prefix + name, kind, add_all(into, parts.content(value).chunks())
        elif isinstance(value, str):
            yield prefix + name, kind, value
        else:
            yield prefix + name, kind, ""
            yield from _list(parts, inner, f"{prefix}{name}/", into)


def _plan(state: CrashState, parts: Parts, evidence: Evidence) -> Plan:
    """Returns the plan up to the power cut, and a start of the job after it."""
    plan = evidence.plan
    at = Point(rank=0, step=max(plan.runs[state.run].until_step, 1))
    cut = Strike(
        id=f"run{state.run}.kill-all-power-cut-{state.place}",
        fault=Kill(kill=Target(), at=at),
        ranks=tuple(range(plan.workload.world.size)),
        point=at,
    )
    fired = {one.strike for one in _before(state, evidence.runs[state.run].fired)}
    struck = plan.runs[state.run]
    # This cut replaces a power cut that really ended the run.
    others = (one for one in struck.strikes if one.id in fired and one.fault.disk is None)
    strikes = (*others, cut)
    again = RunPlan(until_step=plan.workload.total_steps)
    runs = (*plan.runs[: state.run], struck.model_copy(update={"strikes": strikes}), again)
    steps = [checkpoint_step(name) for name, _ in parts.names(state.tree)]
    newest = max((step for step in steps if step is not None), default=0)
    expect = Expect(properties=_properties(plan, state.run, newest))
    return plan.model_copy(update={"runs": runs, "expect": expect, "launcher": LauncherSettings()})


def _properties(plan: Plan, run: int, newest: int) -> tuple[PropertyName, ...]:
    """Returns the properties that can be judged of an event log that ends in the middle.

    With one operation in the run, the lineage of checkpoints is unknown; a start with no save left
    to make deletes nothing; and after a failed save, the cut can come before the one that succeeds.
    """
    wanted, checkpoint = plan.expect.properties, plan.checkpoint
    names: tuple[PropertyName, ...] = get_args(PropertyName) if wanted == "all" else wanted
    left_out: set[PropertyName] = set()
    saves_again = checkpoint and newest + checkpoint.interval <= plan.workload.total_steps
    if not saves_again or any(one.load_step is not None for one in plan.runs[: run + 1]):
        left_out.add("retention")
    if checkpoint is not None and checkpoint.on_error == "go_on":
        left_out.add("bounded")
    return tuple(name for name in names if name not in left_out)


def _before(state: CrashState, fired: Sequence[Fired]) -> list[Fired]:
    return [one for one in fired if one.index <= state.place]


def _write_earlier(folder: Path, run: RunEvidence) -> None:
    """Write a run before the one that the cut ended: its event log and its end, no operation."""
    folder.mkdir()
    places = [[_UNKNOWN] * len(event_log) for event_log in run.event_logs]
    write_trace(folder, (), run.fired, places, ())
    _write_event_logs(folder, run.event_logs)
    (folder / WRITTEN).touch()
    write_processes(folder, run.processes)
    (folder / "after.json").write_text("{}", encoding="utf-8")


def _write_cut(
    directory: Path,
    state: CrashState,
    parts: Parts,
    evidence: Evidence,
    strikes: tuple[Strike, ...],
) -> None:
    run, folder = evidence.runs[state.run], directory / f"run{state.run}"
    folder.mkdir()
    event_logs = [
        [one for one in event_log if one.index <= state.place] for event_log in run.event_logs
    ]
    with closing(ByteStore(folder / WRITTEN)) as written:
        entries = list_tree(parts, state.tree, written)
        cut = tell_cut(entries, written, index=0, rank=0, time_s=0.0)
        written.flush()
    ranks = tuple(range(len(run.event_logs)))
    fired = [*_before(state, run.fired)]
    fired.append(Fired(strike=strikes[-1].id, index=1, time_s=0.0, ranks=ranks))
    write_trace(folder, (cut,), fired, [[1] * len(event_log) for event_log in event_logs], ())
    _write_event_logs(folder, event_logs)
    write_listing(folder, directory / "checkpoints")
    ended = Processes(
        exits=(-_SIGKILL,) * len(ranks),
        hung=(),
        leaked=(),
        stopped=(),
        seconds=0.0,
        undelayed_s=0.0,
        deadline_s=0.0,
    )
    write_processes(folder, ended)


def _write_event_logs(folder: Path, event_logs: Sequence[Sequence[Record]]) -> None:
    for rank, event_log in enumerate(event_logs):
        text = "".join(record.to_line() + "\n" for record in event_log)
        (folder / f"rank{rank}.jsonl").write_text(text, encoding="utf-8")
