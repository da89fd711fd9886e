"""Turns a scenario into a plan: every default decided, every strike named. Pure, without chance."""

from __future__ import annotations

from typing import Literal

from harness.faults.strike import Strike, make_strike
from harness.plan.model import (
    COMMAND_JOB,
    DEFAULT_JOB,
    PROBED_JOB,
    CommandPlan,
    Implementation,
    OperatorAction,
    Plan,
    RunPlan,
    Workload,
)
from harness.promises import ALL
from harness.scenario.schema import Expect, Run, Scenario
from harness.world import World


def make_plan(
    scenario: Scenario, *, source: str, implementation: Implementation, gpus: int = 0
) -> Plan:
    """Returns the plan of a scenario. `source` names its file, `gpus` counts those of this
    machine. A scenario of a command does not use the implementation."""
    command = _plan_command(scenario)
    workload = Workload(
        seed=scenario.seed,
        device=choose_device(scenario, gpus=gpus),
        world=scenario.world
        if scenario.job is None
        else World(dp_shard=scenario.job.ranks_of(None)),
        model=scenario.model,
        optimizer=scenario.optimizer,
        learning_rate=scenario.learning_rate,
        accumulate=scenario.accumulate,
        ema=scenario.ema,
        scheduler=scenario.scheduler,
        data=scenario.data,
        evaluation=scenario.evaluation,
        freeze=scenario.freeze,
        total_steps=max(run.until_step for run in scenario.runs),
    )
    return Plan(
        name=scenario.name,
        source=source,
        workload=workload,
        checkpoint=scenario.checkpoint if command is None else None,
        implementation=implementation if command is None else _unnamed(scenario),
        runs=tuple(_plan_run(scenario, number) for number in range(len(scenario.runs))),
        expect=scenario.expect,
        job=DEFAULT_JOB if command is None else PROBED_JOB if command.job.probe else COMMAND_JOB,
        command=command,
        launcher=scenario.launcher,
        mount=scenario.filesystem,
    )


def _plan_command(scenario: Scenario) -> CommandPlan | None:
    if scenario.job is None:
        return None
    return CommandPlan(
        job=scenario.job,
        layout=scenario.layout,
        result=scenario.result,
        step_line=scenario.step_line,
    )


def _unnamed(scenario: Scenario) -> Implementation:
    """Returns what a command can be blamed for.

    Only where the scenario cuts the power must what it names survive that; and without a probe
    nobody knows whether it would have read what it does not name.
    """
    faults = [fault for run in scenario.runs for fault in run.faults]
    explored = scenario.explore is not None and "power_cut" in scenario.explore.chosen_faults
    is_cut = explored or any(fault.disk is not None for fault in faults)
    left_out = {"every_instant", *([] if is_cut else ["power_cuts"])}
    return Implementation(
        name=COMMAND_JOB, promises=tuple(one for one in ALL if one not in left_out)
    )


def reference_plan(plan: Plan) -> Plan:
    """Returns the same training from start to end, never struck and never saved."""
    return _reference(plan.workload, hands_over=plan.asks_handover)


def changed_reference_plan(plan: Plan, run: int, step: int) -> Plan:
    """Returns the training of a run from a step to the end, as it is arranged there."""
    return _reference(plan.workload_of(run), hands_over=True).model_copy(update={"begins_at": step})


def _reference(workload: Workload, *, hands_over: bool) -> Plan:
    # Plans with the same workload share it, so it holds nothing else of a plan.
    return Plan(
        name="reference",
        source="",
        workload=workload.on_one_node(),
        checkpoint=None,
        implementation=Implementation(),
        runs=(RunPlan(until_step=workload.total_steps),),
        expect=Expect(),
        hands_over=hands_over,
    )


def choose_device(scenario: Scenario, *, gpus: int) -> Literal["cpu", "cuda"]:
    """`auto` takes GPUs if each rank can have its own: two ranks on one GPU is another set-up."""
    if scenario.device == "auto":
        worlds = [scenario.world, *(run.world for run in scenario.runs if run.world is not None)]
        return "cuda" if gpus >= max(world.size for world in worlds) else "cpu"
    return scenario.device


def _plan_run(scenario: Scenario, number: int) -> RunPlan:
    run = scenario.runs[number]
    own = run.world
    if run.nproc is not None:
        own = scenario.world_of(run)
    return RunPlan(
        until_step=run.until_step,
        command=run.command,
        nproc=run.nproc,
        load_step=run.load_step,
        world=own,
        model=run.model,
        freeze=run.freeze,
        learning_rate=run.learning_rate,
        scheduler=run.scheduler,
        data=run.data,
        ignore_freeze_mismatch=run.ignore_freeze_mismatch,
        before=tuple(
            OperatorAction.of(action, f"run{number}.{place}-{action.word}", scenario.seed)
            for place, action in enumerate(run.before, 1)
        ),
        refused=run.refused,
        host=run.host,
        strikes=_plan_strikes(run, number, scenario.world_of(run)),
    )


def _plan_strikes(run: Run, number: int, world: World) -> tuple[Strike, ...]:
    strikes: list[Strike] = []
    for fault in run.faults:
        strike = make_strike(fault, number, world)
        same = sum(known.id.partition("~")[0] == strike.id for known in strikes)
        strikes.append(strike.model_copy(update={"id": f"{strike.id}~{same + 1}"} if same else {}))
    return tuple(strikes)
