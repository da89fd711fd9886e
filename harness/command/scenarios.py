"""Writes failures of a command as scenarios, once each has failed as one.

A scenario strikes the running command at the operation after which the state was taken, and starts
it again. A state of a power cut is one that a model allows: the scenario cuts the power of a real
file system, and the first on which it fails is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.command.outcome import CommandTrial, Setting, newest_before
from harness.command.table import MOST_CAUSES, FailureCause, causes_of
from harness.command.trying import CommandReport
from harness.evidence.operation import Operation
from harness.faults.base import OneRank, Target
from harness.faults.kill import Kill
from harness.faults.power_cut import PowerCut, PowerCutting
from harness.faults.registry import AnyFault
from harness.faults.short_write import ShortWrite
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.plan.model import CommandPlan, Implementation
from harness.prove import settle
from harness.report.failure import scenario_text
from harness.run.command.uninterrupted import Uninterrupted
from harness.run.support import missing_disk
from harness.scenario.schema import Expect, Run, Scenario
from harness.scenario.source import parse_source
from harness.search.explore.points import address
from harness.trial import Bench, try_plan

Faults = tuple[AnyFault, ...]

_FAILURES = frozenset(Outcome) - {Outcome.PASS, Outcome.INVALID}
_NO_DISK = "the power of no file system can be cut here"

_CUTS = (
    PowerCutting(filesystem="ext4"),
    PowerCutting(filesystem="ext4", journal="kept"),
    PowerCutting(filesystem="xfs"),
    PowerCutting(filesystem="xfs", journal="kept"),
    PowerCutting(filesystem="btrfs"),
)


def write_scenarios(
    bench: Bench, command: CommandPlan, report: CommandReport, known: Uninterrupted
) -> dict[CommandTrial, str]:
    """Write a scenario for the first trial of each cause that the table shows.

    Returns a line about each: the command that replays it, or that no scenario failed like it.
    `known` is what they were compared with.
    """
    causes = causes_of(report)[:MOST_CAUSES]
    if not causes:
        return {}
    ranks = known.starts.ranks
    if ranks != command.job.ranks_of(None):
        job = command.job.model_copy(update={"ranks": ranks})
        command = command.model_copy(update={"job": job})
    bench.services.command(command, known)
    operations = known.watched.operations
    return {cause.first: _repeated(bench, command, cause, report, operations) for cause in causes}


def strikes_of(setting: Setting, operations: Sequence[Operation]) -> tuple[Faults, ...]:
    """Returns the faults that can lead to a setting in a running command: one attempt each."""
    if setting.fault is not None:
        return ((setting.fault,),)
    operation = operations[max(setting.place - 1, 0)]
    before = address(operation, tuple(operations))
    after = before.model_copy(update={"when": "after"})
    at = after if setting.place else before
    if setting.kind == "power":
        return tuple((PowerCut(power_cut=cut, at=at),) for cut in _CUTS)
    killed = Kill(kill=Target(rank="all"), at=at)
    if setting.kind == "killed":
        return ((killed,),)
    return ((ShortWrite(short_write=OneRank(rank=operation.rank), at=before), killed),)


def _repeated(
    bench: Bench,
    command: CommandPlan,
    cause: FailureCause,
    report: CommandReport,
    operations: Sequence[Operation],
) -> str:
    trial = cause.first
    lost = cause.outcome is Outcome.LOST_WORK
    expect = Expect(first_step=newest_before(report.tried, trial) if lost else None)
    tried: list[str] = []
    for faults in strikes_of(trial.setting, operations):
        scenario = _scenario(command, faults, expect, name=f"{cause.outcome}: {trial.setting.text}")
        source = parse_source(scenario_text(scenario), shown="the scenario")
        plan = make_plan(scenario, source=source.path, implementation=Implementation())
        if missing_disk(plan.filesystem) is not None:
            continue
        found = try_plan(bench, plan)
        outcome = found.judgement.outcome
        if outcome is cause.outcome or (plan.filesystem and outcome in _FAILURES):
            return f"replay: {settle(found, source).replay}"
        tried.append(f"{outcome} on {plan.filesystem}" if plan.filesystem else str(outcome))
        found.drop()
    return f"no scenario repeats it: {', '.join(dict.fromkeys(tried)) or _NO_DISK}"


def _scenario(command: CommandPlan, faults: Faults, expect: Expect, *, name: str) -> Scenario:
    return Scenario(
        name=name,
        job=command.job,
        layout=command.layout,
        result=command.result,
        step_line=command.step_line,
        runs=(Run(faults=faults), Run()),
        expect=expect,
    )
