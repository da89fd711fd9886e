"""From a plan back to the scenario that it could have been made of; the inverse of `make`."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from harness.faults.registry import AnyFault
from harness.plan.model import Plan, RunPlan, Strike
from harness.scenario.schema import Checkpoint, Run, Scenario

_FAULT: TypeAdapter[AnyFault] = TypeAdapter(AnyFault)


def unmake_plan(plan: Plan) -> Scenario:
    """A scenario whose plan is this one. Its device is left to the machine."""
    workload = plan.workload
    return Scenario(
        name=plan.name,
        seed=workload.seed,
        world=workload.world,
        launcher=plan.launcher,
        filesystem=plan.mount,
        model=workload.model,
        optimizer=workload.optimizer,
        accumulate=workload.accumulate,
        ema=workload.ema,
        scheduler=workload.scheduler,
        data=workload.data,
        checkpoint=plan.checkpoint or Checkpoint(),
        freeze=workload.freeze,
        runs=tuple(
            _unmake_run(run, plan.workload_of(number).world.size)
            for number, run in enumerate(plan.runs)
        ),
        expect=plan.expect,
    )


def _unmake_run(run: RunPlan, size: int) -> Run:
    return Run(
        until_step=run.until_step,
        load_step=run.load_step,
        world=run.world,
        model=run.model,
        freeze=run.freeze,
        ignore_freeze_mismatch=run.ignore_freeze_mismatch,
        before=tuple(deed.action for deed in run.before),
        refused=run.refused,
        host=run.host,
        faults=tuple(_unmake_strike(strike, size) for strike in run.strikes),
    )


def _unmake_strike(strike: Strike, size: int) -> AnyFault:
    target: Any = _unmake_target(strike, size)
    at = strike.point
    if strike.ranks and at.rank == strike.ranks[0]:
        at = at.model_copy(update={"rank": None})
    return _FAULT.validate_python({strike.fault: target, "at": at})


def _unmake_target(strike: Strike, size: int) -> Any:
    if strike.power is not None:
        return strike.power
    if strike.deed is not None:
        return strike.deed.action
    if strike.node is not None:
        link = {"node": strike.node, "seconds": strike.seconds, "kbit_s": strike.kbit_s}
        return {key: value for key, value in link.items() if value is not None}
    if strike.fault == "time_limit":
        return {"rank": "all"}
    # With one rank it does not matter; faults of one operation know no `all`.
    hits_all = len(strike.ranks) == size > 1
    target: dict[str, Any] = {"rank": "all" if hits_all else strike.ranks[0]}
    if strike.fault in ("fail", "raise"):
        target["error"] = strike.error
    if strike.fault == "fail" and strike.until is not None:
        target["until"] = strike.until
    elif strike.fault == "fail":
        target["times"] = "always" if strike.times is None else strike.times
    if strike.seconds is not None:
        target["seconds"] = strike.seconds
    if strike.grace_s is not None:
        target["grace_s"] = strike.grace_s
    if strike.refused is not None:
        target["refused"] = strike.refused
    if strike.host != "first":
        target["host"] = strike.host
    return target
