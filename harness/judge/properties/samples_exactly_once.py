"""`samples_exactly_once`: over crash and resume no sample is skipped or repeated.

The promise: over crash and resume no training sample is skipped or repeated, at any worker count,
mid-epoch, at an epoch boundary, on the second resume.

Evidence: the sample ids of each step, along the chain of runs: a run that resumed from step N
continues the newest earlier run that got to N; all other steps are discarded work. Along the chain
each rank must have seen what the uninterrupted run saw at each step, and within an epoch an id may
occur once over the data-parallel ranks of a pipeline stage (other stages see the same samples).
With another number of stages, the rank at the same place of its stage goes on. Runs that have to be
refused are left out.

Unknown when no sample was seen, or when the uninterrupted run itself repeats an id within what the
ranks call an epoch: then the epochs in the records tell nothing. Not covered: another data-parallel
degree, for which a scenario has to ask for a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.evidence.evidence import Evidence
from harness.evidence.record import Stepped
from harness.judge.history import History
from harness.judge.lineage import counterpart
from harness.judge.outcome import Outcome
from harness.judge.stories import resumed, steps
from harness.judge.verdict import Finding, Promise, Verdict
from harness.scenario.schema import World

PROMISE = Promise(
    name="samples_exactly_once",
    sentence="Over crash and resume no training sample is skipped or repeated.",
    outcome=Outcome.SILENT_DIVERGENCE,
)

Chain = dict[int, Stepped]


def judge(evidence: Evidence, _history: History) -> Verdict:
    """Follow each rank along the chain of runs."""
    worlds = [evidence.plan.workload_of(number).world for number in range(len(evidence.runs))]
    reference_world = evidence.plan.workload.world
    # One chain for each rank of the arrangement with the most stages.
    went_on = [
        world for world, run in zip(worlds, evidence.plan.runs, strict=False) if run.refused is None
    ]
    widest = max((reference_world, *went_on), key=lambda world: world.size)
    size = widest.size
    chains = [_chain(evidence, rank, widest, worlds) for rank in range(size)]
    references = [
        steps(evidence.reference[counterpart(rank, widest, reference_world)])
        for rank in range(size)
    ]
    findings: list[Finding] = []
    for rank, (chain, reference) in enumerate(zip(chains, references, strict=True)):
        detail = _first_difference(chain, reference)
        if detail is not None:
            findings.append(Finding(detail=f"rank {rank}, {detail}"))
    dp_shard = widest.dp_shard
    for first in range(0, size, dp_shard):
        stage = slice(first, first + dp_shard)
        repeated = _repeated(chains[stage])
        if repeated is not None and _repeated(references[stage]) is not None:
            return PROMISE.unknown(f"the uninterrupted run: {_repeated(references[stage])}")
        if repeated is not None:
            findings.append(Finding(detail=repeated))
    if findings:
        return PROMISE.violated(findings)
    seen = sum(len(record.samples) for chain in chains for record in chain.values())
    if not seen:
        return PROMISE.unknown("no rank has seen a sample")
    return PROMISE.holds(f"{seen} samples along the chain of runs")


def _chain(evidence: Evidence, rank: int, widest: World, worlds: list[World]) -> Chain:
    """The steps of one rank that count: those of the last run and of the runs it came from."""
    chains: list[Chain] = []
    for number, run in enumerate(evidence.runs):
        place = counterpart(rank, widest, worlds[number])
        if evidence.plan.runs[number].refused is not None or place >= len(run.stories):
            continue
        decision = resumed(run.stories[place])
        kept = (decision.step if decision is not None else None) or 0
        chains.append(_up_to(kept, chains) | steps(run.stories[place]))
    return chains[-1] if chains else {}


def _up_to(step: int, earlier: list[Chain]) -> Chain:
    """What led to a checkpoint: the steps of the newest earlier run that got so far."""
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
    """The first id that occurs twice within an epoch, over the ranks given."""
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
