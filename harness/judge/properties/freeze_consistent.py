"""`freeze_consistent`: metadata, freeze state and parameters agree.

The promise: `metadata.json`'s `vlm_freeze`, the freeze state effective at that step and the
parameters that the shards were written with agree.

Evidence: the settings of the plan decide what is frozen at each step (the base, then every stage
whose `start_step` has come; the last setting wins). They are compared with the `vlm_freeze` of
every checkpoint at every instant, with what the ranks recorded as frozen after each step and at the
resume, and with the parameter digests: a frozen module's stay the same from step to step, another
module's change on some rank. A run with settings of its own is compared with those, and so are the
checkpoints that it makes. A module counts on the ranks that hold parameters under its name.

Does not apply without freeze settings. Unknown if neither a checkpoint nor a step was seen. Not
covered: that a load with other freeze settings is refused (the guards `refused` and
`refused_alike`), and which bytes of a shard belong to which module.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.evidence.evidence import Evidence
from harness.evidence.record import Resumed, Stepped
from harness.judge.event_logs import EventLog, resumed, steps
from harness.judge.history import History
from harness.judge.outcome import Outcome
from harness.judge.verdict import Finding, Promise, Verdict
from harness.scenario.schema import FreezePlan
from harness.words import EvidenceKind

PROMISE = Promise(
    name="freeze_consistent",
    sentence="`metadata.json`'s `vlm_freeze`, the freeze state effective at that step and the "
    "parameters that the shards were written with agree.",
    outcome=Outcome.SILENT_DIVERGENCE,
    needs=(EvidenceKind.TREE, EvidenceKind.TRAINING),
    uses=(EvidenceKind.RESUMES,),
)


def judge(evidence: Evidence, history: History) -> Verdict:
    """Compare metadata, records and digests with the plan's settings."""
    plans = [evidence.plan.workload_of(number).freeze for number in range(len(evidence.runs))]
    if not any(plan.base or plan.schedule for plan in plans):
        return PROMISE.does_not_apply("the scenario has no freeze settings")
    findings, checkpoints = _metadata(plans, history)
    trained = 0
    for number, (plan, run) in enumerate(zip(plans, evidence.runs, strict=True)):
        for rank, event_log in enumerate(run.event_logs):
            where = f"run {number}, rank {rank}, "
            trained += len(steps(event_log))
            findings += [
                Finding(detail=where + one) for one in _recorded_differently(plan, event_log)
            ]
            findings += [Finding(detail=where + one) for one in _moved(plan, event_log)]
        findings += [Finding(detail=f"run {number}, {one}") for one in _stood(plan, run.event_logs)]
    if findings:
        return PROMISE.violated(findings)
    if not checkpoints and not trained:
        return PROMISE.unknown("neither a checkpoint nor a training step was seen")
    return PROMISE.holds(
        f"{checkpoints} checkpoints and {trained} steps looked at",
        lacks=() if "freeze" in history.layout.states else ("freeze settings in this layout",),
    )


def effective(plan: FreezePlan, step: int) -> dict[str, bool]:
    """Returns which modules are named at `step`, and whether they are frozen."""
    settings = {one.module: one.frozen for one in plan.base}
    for stage in plan.schedule:
        if stage.start_step <= step:
            settings.update({one.module: one.frozen for one in stage.specs})
    return dict(sorted(settings.items()))


def canonical(plan: FreezePlan, step: int) -> list[dict[str, object]]:
    """Returns the expected `vlm_freeze` of a checkpoint of `step`."""
    return [{"module": name, "frozen": frozen} for name, frozen in effective(plan, step).items()]


def _metadata(plans: list[FreezePlan], history: History) -> tuple[list[Finding], int]:
    findings: list[Finding] = []
    seen: set[tuple[str, int]] = set()
    for moment in history.moments if "freeze" in history.layout.states else ():
        for name, found in moment.live.whole().items():
            if (name, found.identity) in seen:
                continue
            seen.add((name, found.identity))
            plan = plans[moment.run]
            wanted = canonical(plan, found.step) if plan.base or plan.schedule else None
            if found.freeze != wanted:
                detail = f"run {moment.run}: {name} has vlm_freeze {found.freeze}, not {wanted}"
                findings.append(Finding(detail=detail, operation=(moment.run, moment.index)))
    return findings, len(seen)


def _recorded_differently(plan: FreezePlan, event_log: EventLog) -> Iterator[str]:
    """Yields points at which a rank records other frozen modules than the settings say."""
    points: list[tuple[str, int, Resumed | Stepped]] = []
    decision = resumed(event_log)
    if decision is not None:
        points.append(("at its start", decision.step or 0, decision))
    points += [(f"step {step}", step, record) for step, record in sorted(steps(event_log).items())]
    for where, step, record in points:
        for module, frozen in effective(plan, step).items():
            if _holds(record, module) and (module in record.frozen) != frozen:
                is_now = "frozen" if module in record.frozen else "not frozen"
                yield f"{where}: {module} is {is_now}, the settings say otherwise"
                return


def _holds(record: Resumed | Stepped, module: str) -> bool:
    return bool(_digests(record, module))


def _digests(record: Resumed | Stepped, module: str) -> dict[str, str]:
    params = record.state.params.items()
    return {name: digest for name, digest in params if name.startswith(module + ".")}


def _pairs(
    plan: FreezePlan, event_log: EventLog, module: str, *, frozen: bool
) -> list[tuple[int, bool]]:
    """Returns the steps through which the module was (not) frozen, and whether a digest changed."""
    found = steps(event_log)
    pairs: list[tuple[int, bool]] = []
    for step, record in sorted(found.items()):
        before = found.get(step - 1)
        if before is None or not _holds(record, module):
            continue
        was = effective(plan, step - 1).get(module, False)
        both = (was, effective(plan, step).get(module, False))
        if both == (frozen, frozen):
            pairs.append((step, _digests(before, module) != _digests(record, module)))
    return pairs


def _moved(plan: FreezePlan, event_log: EventLog) -> Iterator[str]:
    for module in _modules(plan):
        for step, changed in _pairs(plan, event_log, module, frozen=True):
            if changed:
                yield f"step {step}: {module} is frozen, but its parameters changed"
                break


def _stood(plan: FreezePlan, event_logs: tuple[EventLog, ...]) -> Iterator[str]:
    """Yields modules that never changed on any rank although they were to train."""
    for module in _modules(plan):
        pairs = [
            pair
            for event_log in event_logs
            for pair in _pairs(plan, event_log, module, frozen=False)
        ]
        # A single step can have a learning rate of zero.
        if len({step for step, _ in pairs}) > 1 and not any(changed for _, changed in pairs):
            yield f"{module} is not frozen, but its parameters did not change on any rank"


def _modules(plan: FreezePlan) -> list[str]:
    specs = [*plan.base, *(spec for stage in plan.schedule for spec in stage.specs)]
    return sorted({spec.module for spec in specs})
