"""`samples_exactly_once`: over crash and resume no sample is skipped or repeated.

The promise: over crash and resume no training sample is skipped or repeated, at any worker count,
mid-epoch, at an epoch boundary, on the second resume.

Evidence: the sample ids of each step, along the chain of runs: a run that resumed from step N
continues the newest earlier run that reached N; all other steps are discarded work. Along the chain
each rank must have seen what the uninterrupted run saw at each step, and within an epoch an id can
occur only once over the data-parallel ranks of a pipeline stage (other stages see the same
samples). A run that reads in batches of another size must have seen what the reference of the same
change saw. With another number of stages or tensor-parallel peers, the rank with the same share of
the batch continues. With another data-parallel degree no rank does: then all ranks together must
have read what those of the uninterrupted run read together at each step. Runs that must be refused
are left out.

Unknown if no sample was seen, or if the uninterrupted run itself repeats an id within a recorded
epoch: then the epochs in the records are useless. Not covered: which rank reads which share under
another data-parallel degree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.evidence.evidence import Evidence
from harness.evidence.record import Stepped
from harness.judge.event_logs import EventLog, resumed, steps
from harness.judge.history import History
from harness.judge.lineage import counterpart
from harness.judge.outcome import Outcome
from harness.judge.together import read_together
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind
from harness.world import World

PROMISE = Promise(
    name="samples_exactly_once",
    sentence="Over crash and resume no training sample is skipped or repeated.",
    outcome=Outcome.SILENT_DIVERGENCE,
    needs=(EvidenceKind.RESUMES, EvidenceKind.TRAINING, EvidenceKind.REFERENCE),
)

Chain = dict[int, Stepped]


def judge(evidence: Evidence, _history: History) -> Verdict:
    """Follow each rank along the chain of runs, or all of them together."""
    went_on = [
        number
        for number, run in enumerate(evidence.plan.runs[: len(evidence.runs)])
        if run.refused is None
    ]
    worlds = {number: evidence.plan.workload_of(number).world for number in went_on}
    if len({world.degree for world in (evidence.plan.workload.world, *worlds.values())}) > 1:
        return _judge_together(evidence, worlds)
    return _judge_singly(evidence, worlds)


def _judge_singly(evidence: Evidence, worlds: Mapping[int, World]) -> Verdict:
    """Judge the samples of each rank of the widest arrangement, or of the one in its place."""
    first = evidence.plan.workload.world
    widest = max((first, *worlds.values()), key=lambda world: world.size)
    chains: list[Chain] = []
    references: list[Chain] = []
    findings: list[Finding] = []
    for rank in range(widest.size):
        places = {number: counterpart(rank, widest, world) for number, world in worlds.items()}
        logs = {number: evidence.runs[number].event_logs[at] for number, at in places.items()}
        chains.append(_chain(list(logs.values())))
        usual = evidence.reference[counterpart(rank, widest, first)]
        references.append(_expected(evidence, logs, places, usual))
        detail = _first_difference(chains[-1], references[-1])
        if detail is not None:
            findings.append(Finding(detail=f"rank {rank}, {detail}"))
    for begin in range(0, widest.size, widest.stage_size):
        # Tensor-parallel peers read the same samples: one of them represents all.
        stage = slice(begin, begin + widest.stage_size, widest.tp)
        repeated = _repeated(chains[stage])
        if repeated is not None and _repeated(references[stage]) is not None:
            return PROMISE.unknown(f"the uninterrupted run: {_repeated(references[stage])}")
        if repeated is not None:
            findings.append(Finding(detail=repeated))
    return _verdict(evidence, chains, findings)


def _judge_together(evidence: Evidence, worlds: Mapping[int, World]) -> Verdict:
    """Judge the samples of all ranks in each step, if no rank continues another."""
    reference, _ = read_together(evidence.reference, evidence.plan.workload.world)
    findings: list[Finding] = []
    event_logs: list[EventLog] = []
    for number, world in worlds.items():
        run = evidence.runs[number].event_logs
        read, apart = read_together(run, world)
        findings += [Finding(detail=f"run {number}, {one}") for one in apart]
        starts = [decision for event_log in run if (decision := resumed(event_log)) is not None]
        event_logs.append((*starts[:1], *read.values()))
    chain = _chain(event_logs)
    detail = _first_difference(chain, reference)
    if _repeated([reference]) is not None:
        return PROMISE.unknown(f"the uninterrupted run: {_repeated([reference])}")
    for problem in (detail, _repeated([chain])):
        if problem is not None:
            findings.append(Finding(detail=f"all ranks, {problem}"))
    return _verdict(evidence, [chain], findings)


def _verdict(evidence: Evidence, chains: list[Chain], findings: list[Finding]) -> Verdict:
    if findings:
        return PROMISE.violated(findings)
    seen = sum(len(record.samples) for chain in chains for record in chain.values())
    if not seen and evidence.plan.command is not None:
        return PROMISE.does_not_apply("the probe names no samples")
    if not seen:
        return PROMISE.unknown("no rank has seen a sample")
    return PROMISE.holds(f"{seen} samples along the chain of runs")


def _chain(event_logs: Sequence[EventLog]) -> Chain:
    """Returns the steps that count for one place: of the last run and of those it came from."""
    chains: list[Chain] = []
    for event_log in event_logs:
        decision = resumed(event_log)
        kept = (decision.step if decision is not None else None) or 0
        chains.append(_up_to(kept, chains) | steps(event_log))
    return chains[-1] if chains else {}


def _expected(
    evidence: Evidence, logs: Mapping[int, EventLog], places: Mapping[int, int], usual: EventLog
) -> Chain:
    """Returns the chain of one place as the references of its runs would have read it."""
    plan = evidence.plan
    read: list[EventLog] = []
    for number, event_log in logs.items():
        decision, changed = resumed(event_log), evidence.changed.get(number)
        same = usual if changed is None else changed[places[number]]
        if changed is None and plan.workload_of(number).data != plan.workload.data:
            same = event_log  # Without a reference only repetitions are seen.
        read.append((*([] if decision is None else [decision]), *steps(same).values()))
    return _chain(read)


def _up_to(step: int, earlier: list[Chain]) -> Chain:
    """Returns the steps that led to a checkpoint: those of the newest earlier run that far."""
    for chain in reversed(earlier):
        if step in chain:
            return {number: record for number, record in chain.items() if number <= step}
    return {}


def _first_difference(chain: Chain, reference: Mapping[int, Stepped]) -> str | None:
    for step in range(1, max(chain, default=0) + 1):
        if step not in chain:
            return f"step {step}: its samples were skipped, no run has trained it"
        if step not in reference:
            return f"step {step}: the uninterrupted run has no such step"
        found, wanted = chain[step].samples, reference[step].samples
        if found != wanted:
            return f"step {step}: saw samples {_ids(found)}, not {_ids(wanted)}"
    return None


def _repeated(chains: list[Chain]) -> str | None:
    """Returns the first id that occurs twice within an epoch, over the given ranks."""
    seen: set[tuple[int, int]] = set()
    for chain in chains:
        for step, record in sorted(chain.items()):
            for sample in record.samples:
                if (record.epoch, sample) in seen:
                    return f"sample {sample} is seen twice in epoch {record.epoch}, at step {step}"
                seen.add((record.epoch, sample))
    return None


def _ids(samples: tuple[int, ...]) -> str:
    return f"[{', '.join(str(sample) for sample in samples)}]"
