"""Turns a plan back into the scenario that it could have been made from; the inverse of `make`."""

from __future__ import annotations

from harness.plan.model import CommandPlan, Plan, RunPlan
from harness.scenario.schema import Checkpoint, Run, Scenario


def unmake_plan(plan: Plan) -> Scenario:
    """Returns a scenario whose plan is this one. Its device is left to the machine."""
    workload = plan.workload
    if plan.command is not None:
        return _unmake_command(plan, plan.command)
    return Scenario(
        name=plan.name,
        seed=workload.seed,
        world=workload.world,
        launcher=plan.launcher,
        filesystem=plan.mount,
        model=workload.model,
        optimizer=workload.optimizer,
        learning_rate=workload.learning_rate,
        accumulate=workload.accumulate,
        ema=workload.ema,
        scheduler=workload.scheduler,
        data=workload.data,
        evaluation=workload.evaluation,
        checkpoint=plan.checkpoint or Checkpoint(),
        freeze=workload.freeze,
        runs=tuple(map(_unmake_run, plan.runs)),
        expect=plan.expect,
    )


def _unmake_command(plan: Plan, command: CommandPlan) -> Scenario:
    return Scenario(
        name=plan.name,
        seed=plan.workload.seed,
        job=command.job,
        layout=command.layout,
        result=command.result,
        step_line=command.step_line,
        filesystem=plan.mount,
        runs=tuple(_unmake_run(run).model_copy(update={"world": None}) for run in plan.runs),
        expect=plan.expect,
    )


def _unmake_run(run: RunPlan) -> Run:
    return Run(
        until_step=run.until_step,
        command=run.command,
        nproc=run.nproc,
        load_step=run.load_step,
        world=run.world,
        model=run.model,
        freeze=run.freeze,
        learning_rate=run.learning_rate,
        scheduler=run.scheduler,
        data=run.data,
        ignore_freeze_mismatch=run.ignore_freeze_mismatch,
        before=tuple(action.action for action in run.before),
        refused=run.refused,
        host=run.host,
        faults=tuple(strike.fault for strike in run.strikes),
    )
