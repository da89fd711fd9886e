"""`resume_exact`: the resumed run equals the uninterrupted one bit for bit.

The promise: the resumed run equals the uninterrupted one bit for bit: weights, optimizer moments,
learning rate, loss, tokens seen, extra values, random draws of every rank (python, numpy, torch,
each CUDA device).

Evidence: the digests that each rank wrote down after its resume and after each step, against those
of the uninterrupted run at the same step. A name that only one side has is a difference. The first
run is compared as well, so a save that disturbs training is seen.

Unknown when no step could be compared. Not covered yet: a changed layout, where equality is within
a tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.evidence.evidence import Evidence
from harness.evidence.record import Resumed, StateDigest, Stepped, keep_word
from harness.judge.history import History
from harness.judge.outcome import Outcome
from harness.judge.stories import Story, resumed, steps
from harness.judge.verdict import Finding, Promise, Verdict

PROMISE = Promise(
    name="resume_exact",
    sentence="The resumed run equals the uninterrupted one bit for bit: weights, optimizer "
    "moments, LR, loss, RNG draws of every rank.",
    outcome=Outcome.SILENT_DIVERGENCE,
)


def judge(evidence: Evidence, _history: History) -> Verdict:
    """Compare every rank of every run with the reference, step by step."""
    findings: list[Finding] = []
    compared = 0
    for number, run in enumerate(evidence.runs):
        for rank, story in enumerate(run.stories):
            if rank >= len(evidence.reference):
                findings.append(Finding(detail=f"run {number}: the reference has no rank {rank}"))
                continue
            difference, count = _first_difference(story, evidence.reference[rank])
            compared += count
            if difference is not None:
                findings.append(Finding(detail=f"run {number}, rank {rank}, {difference}"))
    if findings:
        return PROMISE.violated(findings)
    if not compared:
        return PROMISE.unknown("no step of any run could be compared with the reference")
    return PROMISE.holds(f"{compared} steps compared")


def _first_difference(story: Story, reference: Story) -> tuple[str | None, int]:
    """The first difference of one rank in one run, and how many steps were compared."""
    expected = steps(reference)
    decision = resumed(story)
    if decision is not None:
        difference = _at_start(decision, resumed(reference), expected)
        if difference is not None:
            return difference, 0
    compared = 0
    for step, record in sorted(steps(story).items()):
        if step not in expected:
            return f"step {step}: the uninterrupted run has no such step", compared
        differences = _step_differences(record, expected[step])
        if differences:
            return f"step {step}: {'; '.join(differences)}", compared
        compared += 1
    return None, compared


def _at_start(decision: Resumed, fresh: Resumed | None, expected: dict[int, Stepped]) -> str | None:
    if decision.step is None:
        wanted = fresh.state if fresh is not None else None
        where = "at its fresh start"
    else:
        wanted = expected[decision.step].state if decision.step in expected else None
        where = f"resumed at step {decision.step}"
    if wanted is None:
        return f"{where}: the uninterrupted run has no such state"
    differences = _state_differences(decision.state, wanted)
    if decision.step is not None:
        differences += _values_differ(decision, expected[decision.step].tokens_seen)
    return f"{where}: {'; '.join(differences)}" if differences else None


def _values_differ(decision: Resumed, tokens_seen: int) -> list[str]:
    """Plain values that a load hands back to the loop."""
    differences: list[str] = []
    if decision.tokens_seen != tokens_seen:
        differences.append(f"tokens_seen is {decision.tokens_seen}, not {tokens_seen}")
    if decision.kept != keep_word(decision.step or 0):
        differences.append(f"an extra value came back as {decision.kept!r}")
    return differences


def _step_differences(found: Stepped, wanted: Stepped) -> list[str]:
    differences: list[str] = []
    if found.loss != wanted.loss:
        differences.append(f"loss is {_number(found.loss)}, not {_number(wanted.loss)}")
    if found.lr != wanted.lr:
        differences.append(f"learning rate is {_rates(found.lr)}, not {_rates(wanted.lr)}")
    return differences + _state_differences(found.state, wanted.state)


def _state_differences(found: StateDigest, wanted: StateDigest) -> list[str]:
    parts = (
        ("parameter", found.params, wanted.params),
        ("moment", found.moments, wanted.moments),
        ("random stream", found.rng, wanted.rng),
    )
    return [told for word, here, there in parts for told in _name_differences(word, here, there)]


def _name_differences(word: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    groups = (("is missing", missing), ("is not in the reference", extra), ("differs", other))
    return [f"{word} {names[0]} {verb}{_and_more(names)}" for verb, names in groups if names]


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _number(text: str | None) -> str:
    return "none" if text is None else f"{float.fromhex(text):.9g} ({text})"


def _rates(rates: tuple[str, ...]) -> str:
    return ", ".join(_number(rate) for rate in rates) or "none"
