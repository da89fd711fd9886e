"""From a scenario to a plan: every default decided, every strike named. Pure, without chance."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from harness.faults.actions import Action, action_of
from harness.faults.by_hand import ByHand
from harness.faults.cut_link import CutLink
from harness.faults.point import Point
from harness.faults.power_cut import PowerCutting
from harness.faults.registry import AnyFault
from harness.faults.slow_link import SlowLink
from harness.plan.model import Deed, Implementation, Plan, RunPlan, Strike, Workload
from harness.scenario.schema import Expect, Run, Scenario, World


def make_plan(
    scenario: Scenario, *, source: str, implementation: Implementation, gpus: int = 0
) -> Plan:
    """The plan of a scenario. `source` names its file, `gpus` counts those of this machine."""
    workload = Workload(
        seed=scenario.seed,
        device=choose_device(scenario, gpus=gpus),
        world=scenario.world,
        model=scenario.model,
        optimizer=scenario.optimizer,
        accumulate=scenario.accumulate,
        ema=scenario.ema,
        scheduler=scenario.scheduler,
        data=scenario.data,
        freeze=scenario.freeze,
        total_steps=max(run.until_step for run in scenario.runs),
    )
    return Plan(
        name=scenario.name,
        source=source,
        workload=workload,
        checkpoint=scenario.checkpoint,
        implementation=implementation,
        runs=tuple(_plan_run(scenario, number) for number in range(len(scenario.runs))),
        expect=scenario.expect,
        launcher=scenario.launcher,
        mount=scenario.filesystem,
    )


def reference_plan(plan: Plan) -> Plan:
    """The same training from start to end, never struck and never saved."""
    run = RunPlan(until_step=plan.workload.total_steps)
    # Plans with the same workload share it, so nothing else of this one may be in it.
    return Plan(
        name="reference",
        source="",
        workload=plan.on_one_node(),
        checkpoint=None,
        implementation=Implementation(),
        runs=(run,),
        expect=Expect(),
    )


def choose_device(scenario: Scenario, *, gpus: int) -> Literal["cpu", "cuda"]:
    """`auto` takes GPUs where each rank has its own: two ranks on one GPU is another set-up."""
    if scenario.device == "auto":
        worlds = [scenario.world, *(run.world for run in scenario.runs if run.world is not None)]
        return "cuda" if gpus >= max(world.size for world in worlds) else "cpu"
    return scenario.device


def _plan_run(scenario: Scenario, number: int) -> RunPlan:
    run = scenario.runs[number]
    world = run.world or scenario.world
    return RunPlan(
        until_step=run.until_step,
        load_step=run.load_step,
        world=run.world,
        model=run.model,
        freeze=run.freeze,
        ignore_freeze_mismatch=run.ignore_freeze_mismatch,
        before=tuple(
            _plan_deed(action, f"run{number}.{place}", scenario.seed)
            for place, action in enumerate(run.before, 1)
        ),
        refused=run.refused,
        host=run.host,
        strikes=_with_deadline(
            _plan_strikes(run, number, world, scenario.seed), scenario.checkpoint.timeout_s
        ),
    )


def _plan_deed(action: Action, place: str, seed: int) -> Deed:
    name = f"{place}-{action_of(action)}"
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=6).digest()
    return Deed(id=name, action=action, choice=int.from_bytes(digest, "big"))


def _plan_strikes(run: Run, number: int, world: World, seed: int) -> tuple[Strike, ...]:
    strikes: list[Strike] = []
    for fault in run.faults:
        if isinstance(fault, ByHand):
            strike = _plan_by_hand(fault, number, seed)
        elif isinstance(fault, CutLink | SlowLink):
            strike = _plan_on_link(fault, number, world)
        else:
            strike = _plan_strike(fault, number, world.size)
        same = sum(known.id.partition("~")[0] == strike.id for known in strikes)
        strikes.append(strike.model_copy(update={"id": f"{strike.id}~{same + 1}"} if same else {}))
    return tuple(strikes)


def _with_deadline(strikes: tuple[Strike, ...], timeout_s: float | None) -> tuple[Strike, ...]:
    """The strikes of a run, where the manager gives up on an operation after `timeout_s`."""
    return tuple(
        one.model_copy(update={"outlasts": True})
        if one.fault == "delay" and timeout_s is not None and (one.seconds or 0.0) >= timeout_s
        else one
        for one in strikes
    )


def _plan_strike(fault: AnyFault, number: int, size: int) -> Strike:
    kind = fault.word
    target = getattr(fault, kind)
    ranks = tuple(range(size)) if target.rank == "all" else (target.rank,)
    at_rank = fault.at.rank if fault.at.rank is not None else ranks[0]
    point = fault.at.model_copy(update={"rank": at_rank})
    whom = "all" if target.rank == "all" else f"rank{target.rank}"
    elsewhere = "" if at_rank == ranks[0] else f"-at-rank{at_rank}"
    error = getattr(target, "error", None)
    until = getattr(target, "until", None)
    times = "always" if until is not None else getattr(target, "times", 1)
    what = "-".join(word for word in (kind, error, whom) if word)
    return Strike(
        id=f"run{number}.{what}{elsewhere}-{_name_point(point)}",
        fault=kind,
        ranks=ranks,
        point=point,
        error=error,
        times=None if times == "always" else times,
        until=until,
        seconds=getattr(target, "seconds", None),
        grace_s=getattr(target, "grace_s", None),
        refused=getattr(target, "refused", None),
        host=getattr(target, "host", "first"),
        power=target if isinstance(target, PowerCutting) else None,
    )


def _plan_by_hand(fault: ByHand, number: int, seed: int) -> Strike:
    point = fault.at.model_copy(update={"rank": fault.at.rank or 0})
    deed = _plan_deed(fault.by_hand, f"run{number}.by_hand-{_name_point(point)}", seed)
    return Strike(id=deed.id, fault="by_hand", ranks=(), point=point, deed=deed)


def _plan_on_link(fault: CutLink | SlowLink, number: int, world: World) -> Strike:
    kind = fault.word
    settings = getattr(fault, kind)
    ranks = tuple(rank for rank in range(world.size) if world.node_of(rank) == settings.node)
    point = fault.at.model_copy(
        update={"rank": fault.at.rank if fault.at.rank is not None else ranks[0]}
    )
    return Strike(
        id=f"run{number}.{kind}-node{settings.node}-{_name_point(point)}",
        fault=kind,
        ranks=ranks,
        point=point,
        node=settings.node,
        seconds=getattr(settings, "seconds", None),
        kbit_s=getattr(settings, "kbit_s", None),
    )


def _name_point(point: Point) -> str:
    if point.step is not None:
        return f"step{point.step}" + ("-once-published" if point.once_published else "")
    path = None if point.path is None else re.sub(r"[^A-Za-z0-9_.]+", "_", point.path)
    save = None if point.save is None else f"save{point.save}"
    words = (save, point.phase, point.operation, path, str(point.nth), point.when)
    return "-".join(word for word in words if word)
