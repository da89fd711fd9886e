"""Makes a crash state the beginning of a plan that starts the job from it.

The account of the job until then is that of the watched run. The ordinary judges judge the whole.
"""

from __future__ import annotations

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


def restore(state: CrashState, parts: Parts, evidence: Evidence) -> tuple[Plan, Beginning]:
    """Returns the plan whose last run starts the job again, and its beginning."""
    before = tuple(map(earlier, evidence.runs[: state.run]))
    last = cut_short(evidence.runs[state.run], state.place)
    beginning = Beginning(
        past=(*before, last), fill=lambda root: write_tree(parts, state.tree, root)
    )
    fired = {one.strike for one in last.fired}
    return _plan(state, parts, evidence, fired), beginning


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
