"""`resume_exact`: the resumed run equals the uninterrupted one bit for bit.

The promise: the resumed run equals the uninterrupted one bit for bit: weights, optimizer moments,
all settings of its parameter groups, learning rate, loss, tokens seen, extra values (among them a
loss scale and a moving average with their counters), random draws of every rank (python, numpy,
torch, each CUDA device).

Evidence: the digests that each rank recorded after its resume and after each step, compared with
those of the uninterrupted run at the same step, and the losses of evaluations. A name that only one
side has is a difference. The first run is compared as well, so a save that disturbs training is
seen. If a checkpoint's metadata gives a number of tokens, it must be what its run had seen at that
step.

An extra value says which run saved a checkpoint. Where an operator went back to an older step, or a
run was given one by name, and the run then saved, the checkpoints of later steps are those of an
abandoned branch: no later start may take one, although its state is the same.

Every checkpoint that was published is read, resumed from or not, and its tensors and extra values
are compared with the digests of its step (`harness.judge.saved_bytes`). One that holds the bytes of
another step saved what changed after `save` had returned.

A run with another arrangement of ranks, other wrappers or other freeze settings trains in another
way than the uninterrupted one, and so does every run that continues it. At its start, each shard of
every parameter and moment must equal the one of that name, whichever stage holds it, in the run
that it continues; if shards are split differently, every whole tensor must, and ranks that hold the
same piece must hold the same values. So must the settings, tokens seen and extra values, and the
random draws if the arrangement is the same. From then on it must equal, bit for bit, a reference
that makes the same change from the state of an unfaulted run at the same step, without any
checkpointer, and goes on with the random draws with which the run did. Where the harness cannot
make that reference the verdict says so, and the learning rate alone is compared.

Unknown if no step could be compared. Not covered: with which random draws a run goes on in another
arrangement; tensors that a checkpoint holds in another form than the ranks, until one resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from harness.evidence.evidence import Evidence
from harness.evidence.record import Resumed, Stepped
from harness.judge.changed_run import changed_run, not_judged
from harness.judge.differences import (
    differing_evaluations,
    differing_steps,
    state_differences,
    values_differ,
)
from harness.judge.event_logs import EventLog, resumed, steps
from harness.judge.history import History
from harness.judge.lineage import follows_reference, saved_words
from harness.judge.outcome import Outcome
from harness.judge.saved_bytes import SecondReading, read_again
from harness.judge.verdict import Finding, Promise, Verdict
from harness.words import EvidenceKind

PROMISE = Promise(
    name="resume_exact",
    sentence="The resumed run equals the uninterrupted one bit for bit: weights, optimizer "
    "moments and settings, LR, loss, RNG draws of every rank, tokens, extra values. In another "
    "layout, weights, moments and settings are equal at load. A checkpoint holds the state of its "
    "save, whether it is resumed from or not.",
    outcome=Outcome.SILENT_DIVERGENCE,
    needs=(EvidenceKind.RESUMES, EvidenceKind.TRAINING, EvidenceKind.REFERENCE),
    uses=(EvidenceKind.TREE, EvidenceKind.ACKNOWLEDGEMENTS),
)


Words = Callable[[int], frozenset[str]]


def judge(evidence: Evidence, history: History) -> Verdict:
    """Compare every rank of every run with the reference, step by step."""
    findings = list(_misstated_tokens(evidence, history))
    again = SecondReading() if history.gaps else read_again(evidence, history)
    findings += again.findings
    compared = 0
    unjudged = list(again.not_judged())
    for which, run in enumerate(evidence.runs):
        if evidence.plan.runs[which].refused is not None:
            continue
        if not follows_reference(evidence, which):
            differences, count = changed_run(evidence, which)
            findings += [Finding(detail=f"run {which}, {one}") for one in differences]
            unjudged += [one for one in [not_judged(evidence, which)] if one is not None]
            compared += count
            continue
        for rank, event_log in enumerate(run.event_logs):
            if rank >= len(evidence.reference):
                findings.append(Finding(detail=f"run {which}: the reference has no rank {rank}"))
                continue
            words = None if evidence.plan.command else partial(saved_words, evidence, which)
            difference, count = _first_difference(event_log, evidence.reference[rank], words)
            compared += count
            if difference is not None:
                findings.append(Finding(detail=f"run {which}, rank {rank}, {difference}"))
    if findings:
        return PROMISE.violated(findings)
    if not compared:
        return PROMISE.unknown("no step of any run could be compared with the reference")
    if "tokens_seen" not in history.layout.states:
        unjudged.append("tokens seen in this layout")
    return PROMISE.holds(
        f"{compared} steps compared, {again.equal} values in checkpoints", lacks=tuple(unjudged)
    )


def _misstated_tokens(evidence: Evidence, history: History) -> Iterator[Finding]:
    """Yields checkpoints whose number of tokens differs from what their run had seen."""
    known: set[int] = set()
    for moment in history.moments:
        for name, found in moment.live.whole().items():
            is_new = found.identity not in known
            known.add(found.identity)
            if moment.operator or not is_new or found.tokens_seen is None:
                continue
            event_logs = evidence.runs[moment.run].event_logs
            records = [steps(event_log).get(found.step) for event_log in event_logs]
            seen = {record.tokens_seen for record in records if record is not None}
            if seen and found.tokens_seen not in seen:
                detail = (
                    f"run {moment.run}: {name} says {found.tokens_seen} tokens seen, its run had "
                    f"seen {', '.join(str(one) for one in sorted(seen))}"
                )
                yield Finding(detail=detail, operation=(moment.run, moment.index))


def _first_difference(
    event_log: EventLog, reference: EventLog, words: Words | None
) -> tuple[str | None, int]:
    """Returns the first difference of one rank in one run, and how many steps were compared."""
    expected = steps(reference)
    decision = resumed(event_log)
    if decision is not None:
        difference = _at_start(decision, resumed(reference), expected, words)
        if difference is not None:
            return difference, 0
    differing = chain(
        differing_steps(event_log, expected), differing_evaluations(event_log, reference)
    )
    for difference in differing:
        return difference, 0
    return None, len(steps(event_log))


def _at_start(
    decision: Resumed, fresh: Resumed | None, expected: dict[int, Stepped], words: Words | None
) -> str | None:
    # A loop can save before its first step: the uninterrupted run began with that state.
    wanted = expected.get(decision.step) if decision.step else fresh
    is_fresh = decision.step is None
    where = "at its fresh start" if is_fresh else f"resumed at step {decision.step}"
    if wanted is None:
        return f"{where}: the uninterrupted run has no such state"
    differences = state_differences(decision.state, wanted.state)
    if not is_fresh and words is not None:
        differences += values_differ(decision, wanted, words(decision.step or 0))
    return f"{where}: {'; '.join(differences)}" if differences else None
