"""The first bytes in which a run differs from the reference: tensor, sample, random stream.

Pure, over evidence. First means the earliest run, then the earliest step, then the lowest rank. A
run with another arrangement of ranks or other freeze settings is left out: `resume_exact` says what
it must equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from harness.evidence.evidence import Evidence
from harness.evidence.record import Resumed, StateDigest, Stepped
from harness.judge.event_logs import EventLog, records, resumed, steps
from harness.judge.lineage import follows_reference

_Pair = tuple[str, str, StateDigest, StateDigest]
"""Where the state is, its rank, what was found, what was expected."""


Show = Callable[[str | None], str]


def _bytes(digest: str | None) -> str:
    return "not there" if digest is None else f"bytes with digest {digest}"


def _text(value: str | None) -> str:
    return "not there" if value is None else value


_KINDS: tuple[tuple[str, str, Show], ...] = (
    ("tensor", "params", _bytes),
    ("moment", "moments", _bytes),
    ("random stream", "rng", _bytes),
    ("optimizer setting", "groups", _text),
)


def describe_differences(evidence: Evidence) -> Iterator[str]:
    """Yields at most one line for each kind of state; none if nothing differs."""
    states = list(_states(evidence))
    for word, part, show in _KINDS:
        found = next(_names(part, show, states), None)
        if found is not None:
            yield f"first differing {word}: {found}"
    sample = next(_samples(evidence), None)
    if sample is not None:
        yield f"first differing sample: {sample}"


def _names(part: str, show: Show, states: list[_Pair]) -> Iterator[str]:
    for where, rank, found, wanted in states:
        name = _first(getattr(found, part), getattr(wanted, part))
        if name is not None:
            here, there = getattr(found, part).get(name), getattr(wanted, part).get(name)
            yield f"{name}, {where}, {rank}: {show(here)}, expected {show(there)}"


def _first(found: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    names = sorted(found.keys() | wanted.keys())
    return next((name for name in names if found.get(name) != wanted.get(name)), None)


def _states(evidence: Evidence) -> Iterator[_Pair]:
    """Yields every recorded state beside the state that it must equal, in order."""
    for number, _, pairs in _comparable(evidence):
        for rank, (event_log, reference) in enumerate(pairs):
            start = _at_start(event_log, reference)
            if start is not None:
                yield f"run {number} at its start ({start[0]})", f"rank {rank}", *start[1:]
        taken = sorted({step for event_log, _ in pairs for step in steps(event_log)})
        for step in taken:
            for rank, (found, wanted) in enumerate(_both(pairs, step)):
                if found is not None and wanted is not None:
                    where = f"run {number} after step {step}"
                    yield where, f"rank {rank}", found.state, wanted.state


def _at_start(
    event_log: EventLog, reference: EventLog
) -> tuple[str, StateDigest, StateDigest] | None:
    decision, fresh = resumed(event_log), resumed(reference)
    if decision is None:
        return None
    if decision.step is None:
        return None if fresh is None else ("fresh", decision.state, fresh.state)
    wanted = steps(reference).get(decision.step)
    return None if wanted is None else (f"step {decision.step}", decision.state, wanted.state)


def _samples(evidence: Evidence) -> Iterator[str]:
    for number, size, pairs in _comparable(evidence):
        for step in range(1, size + 1):
            for rank, (found, wanted) in enumerate(_both(pairs, step)):
                if found is None or wanted is None or found.samples == wanted.samples:
                    continue
                both = zip(found.samples, wanted.samples, strict=False)
                place = next((n for n, (one, other) in enumerate(both) if one != other), None)
                place = min(len(found.samples), len(wanted.samples)) if place is None else place
                here, there = _at(found.samples, place), _at(wanted.samples, place)
                yield f"run {number}, step {step}, rank {rank}: saw {here}, expected {there}"


def _at(samples: tuple[int, ...], place: int) -> str:
    return f"sample {samples[place]}" if place < len(samples) else "no more samples"


def _both(pairs: list[tuple[EventLog, EventLog]], step: int) -> list[tuple[Stepped | None, ...]]:
    return [
        (steps(event_log).get(step), steps(reference).get(step)) for event_log, reference in pairs
    ]


def _comparable(evidence: Evidence) -> Iterator[tuple[int, int, list[tuple[EventLog, EventLog]]]]:
    """Yields the runs that must equal the reference: number, last step, pairs of event logs."""
    for number, run in enumerate(evidence.runs):
        if evidence.plan.runs[number].refused is not None or not _recorded_states(run.event_logs):
            continue
        if follows_reference(evidence, number):
            pairs = list(zip(run.event_logs, evidence.reference, strict=False))
            last = max(
                (step for event_log in run.event_logs for step in steps(event_log)), default=0
            )
            yield number, last, pairs


def _recorded_states(event_logs: tuple[EventLog, ...]) -> bool:
    """Whether any rank recorded a state."""
    return any(
        records(event_log, Resumed) or records(event_log, Stepped) for event_log in event_logs
    )
