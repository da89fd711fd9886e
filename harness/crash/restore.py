"""Makes a crash state the beginning of a plan that starts the job from it.

The account of the job until then is that of the watched run. The ordinary judges judge the whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from harness.crash.explore import CrashState
from harness.disk.changes import Version
from harness.disk.state import Parts
from harness.evidence.evidence import Evidence
from harness.plan.model import Plan, RunPlan
from harness.run.beginning import Beginning, cut_short, earlier
from harness.scenario.launcher import LauncherSettings
from harness.scenario.schema import Expect, PropertyName

WriteFile = Callable[[Parts, Version, Path], None]
"""Makes a new file of a version."""
_BEGAN_NS = time.time_ns() - 3600 * 10**9
_NS_A_CHANGE = 10**6


def restore(state: CrashState, parts: Parts, evidence: Evidence) -> tuple[Plan, Beginning]:
    """Returns the plan whose last run starts the job again, and its beginning."""
    before = tuple(map(earlier, evidence.runs[: state.run]))
    last = cut_short(evidence.runs[state.run], state.place)
    beginning = Beginning(
        past=(*before, last), fill=lambda root: write_tree(parts, state.tree, root)
    )
    fired = {one.strike for one in last.fired}
    return _plan(state, parts, evidence, fired), beginning


def write_file(parts: Parts, version: Version, place: Path) -> None:
    """Write the bytes of a version into a new file, with the time of its last change."""
    parts.content(version).write(place)
    _set_time(place, parts.changed(version))


def _set_time(place: Path, changed: int) -> None:
    """Set the time of a file to that of a change: a millisecond after the one before, an hour ago,
    so that nothing is from the future."""
    time_ns = _BEGAN_NS + changed * _NS_A_CHANGE
    os.utime(place, ns=(time_ns, time_ns))


def write_tree(parts: Parts, number: int, target: Path, write: WriteFile = write_file) -> None:
    """Write what is below a tree into the directory `target`.

    The files are written in the order of their last changes, and their times have this order: a job
    may take the newest one.
    """
    folders = [(target, number)]
    files: list[tuple[int, Path, Version]] = []
    for folder, inner in folders:  # it grows meanwhile
        for name, below in parts.names(inner):
            _, value = parts.part(below)
            if isinstance(value, Version):
                files.append((parts.changed(value), folder / name, value))
            elif isinstance(value, str):
                (folder / name).symlink_to(value)
            else:
                (folder / name).mkdir()
                folders.append((folder / name, below))
    newest = dict.fromkeys((folder for folder, _ in folders), 0)
    for changed, place, version in sorted(files):
        write(parts, version, place)
        newest |= dict.fromkeys(set(place.parents) & newest.keys(), changed)
    for folder, changed in newest.items():
        _set_time(folder, changed)


def _plan(state: CrashState, parts: Parts, evidence: Evidence, fired: set[str]) -> Plan:
    """Returns the plan up to the power cut, and a start of the job after it."""
    plan = evidence.plan
    struck = plan.runs[state.run]
    # This cut replaces a power cut that really ended the run.
    strikes = (one for one in struck.strikes if one.id in fired and one.fault.disk is None)
    again = RunPlan(until_step=plan.workload.total_steps)
    ended = struck.model_copy(update={"strikes": tuple(strikes)})
    runs = (*plan.runs[: state.run], ended, again)
    steps = [plan.layout.step_of(name) for name, _ in parts.names(state.tree)]
    newest = max((step for step in steps if step is not None), default=0)
    expect = Expect(properties=_properties(plan, state.run, newest))
    return plan.model_copy(
        update={
            "runs": runs,
            "past": len(runs) - 1,
            "expect": expect,
            "launcher": LauncherSettings(),
        }
    )


def _properties(plan: Plan, run: int, newest: int) -> tuple[PropertyName, ...]:
    """Returns the properties that can be judged of an event log that ends in the middle.

    Without operations, the lineage of checkpoints is unknown; a start with no save left to make
    deletes nothing; and after a failed save, the cut can come before the one that succeeds.
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
