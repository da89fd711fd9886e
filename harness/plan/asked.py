"""Determines the promises without which a scenario shows nothing about an implementation."""

from __future__ import annotations

from collections.abc import Iterator

from harness.plan.model import Plan
from harness.promises import PARTS
from harness.scenario.exploration import Explore
from harness.words import PROPERTIES
from harness.world import World


def not_promised(plan: Plan, explore: Explore | None = None) -> str | None:
    """Returns why the implementation of a plan cannot be blamed for anything, or None."""
    promised = plan.implementation.promises
    missing = [one for one in sorted({*_asked(plan, explore)}) if one not in promised]
    if not missing:
        return None
    parts = "; ".join(f"{one} ({PARTS.get(one, 'the property')})" for one in missing)
    return f"not promised by {plan.implementation.name}: {parts}"


def _asked(plan: Plan, explore: Explore | None) -> Iterator[str]:
    if plan.mount is not None or "other" in plan.hosts:
        yield "file_systems"
    if explore is not None and "power_cut" in explore.chosen_faults:
        yield "power_cuts"
    wanted = plan.expect.properties
    if wanted != "all" and not {*wanted} & {*plan.implementation.promises}:
        yield from (one for one in PROPERTIES if one in wanted)
    for run in plan.runs:
        asked = [one.fault.asks for one in run.strikes]
        asked += [one.action.asks for one in run.before]
        yield from (one for one in asked if one is not None)
        if run.world is not None and _stages(run.world) != _stages(plan.workload.world):
            yield "other_stages"
        is_other = run.world is not None and not run.world.same_inside(plan.workload.world)
        if is_other or run.model is not None:
            yield "other_ranks"


def _stages(world: World) -> tuple[int, int]:
    """Returns what decides which layers a stage has: interleaved stages have two parts each."""
    return world.pp, world.chunks
