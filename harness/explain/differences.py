"""The first bytes in which a run differs from the uninterrupted one: tensor, sample, random stream.

Pure, over evidence. First means the earliest run, then the earliest step, then the lowest rank. A
run that has another arrangement of ranks or other freeze settings is left out: what it has to equal
is said by `resume_exact`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.evidence.evidence import Evidence
from harness.evidence.record import Resumed, StateDigest, Stepped
from harness.judge.lineage import follows_reference
from harness.judge.stories import Story, records, resumed, steps

_Told = tuple[str, str, StateDigest, StateDigest]
"""Where it was, of which rank, what was found, what was expected."""


def tell_differences(evidence: Evidence) -> Iterator[str]:
    """At most one line a kind; none where nothing differs."""
    states = list(_states(evidence))
    for word, part in (("tensor", "params"), ("moment", "moments"), ("random stream", "rng")):
        found = next(_names(part, states), None)
        if found is not None:
            yield f"first differing {word}: {found}"
    sample = next(_samples(evidence), None)
    if sample is not None:
        yield f"first differing sample: {sample}"


def _names(part: str, states: list[_Told]) -> Iterator[str]:
    for where, who, found, wanted in states:
        name = _first(getattr(found, part), getattr(wanted, part))
        if name is not None:
            here, there = getattr(found, part).get(name), getattr(wanted, part).get(name)
            yield f"{name}, {where}, {who}: {_bytes(here)}, expected {_bytes(there)}"


def _bytes(digest: str | None) -> str:
    return "not there" if digest is None else f"bytes with digest {digest}"


def _first(found: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    names = sorted(found.keys() | wanted.keys())
    return next((name for name in names if found.get(name) != wanted.get(name)), None)


def _states(evidence: Evidence) -> Iterator[_Told]:
    """Every state that a run wrote down beside the one that it has to equal, in order."""
    for number, _, pairs in _comparable(evidence):
        for rank, (story, reference) in enumerate(pairs):
            start = _at_start(story, reference)
            if start is not None:
                yield f"run {number} at its start ({start[0]})", f"rank {rank}", *start[1:]
        taken = sorted({step for story, _ in pairs for step in steps(story)})
        for step in taken:
            for rank, (found, wanted) in enumerate(_both(pairs, step)):
                if found is not None and wanted is not None:
                    where = f"run {number} after step {step}"
                    yield where, f"rank {rank}", found.state, wanted.state


def _at_start(story: Story, reference: Story) -> tuple[str, StateDigest, StateDigest] | None:
    decision, fresh = resumed(story), resumed(reference)
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


def _both(pairs: list[tuple[Story, Story]], step: int) -> list[tuple[Stepped | None, ...]]:
    return [(steps(story).get(step), steps(reference).get(step)) for story, reference in pairs]


def _comparable(evidence: Evidence) -> Iterator[tuple[int, int, list[tuple[Story, Story]]]]:
    """The runs that have to equal the reference: number, last step, pairs of stories."""
    for number, run in enumerate(evidence.runs):
        if evidence.plan.runs[number].refused is not None or not _tells(run.stories):
            continue
        if follows_reference(evidence, number):
            pairs = list(zip(run.stories, evidence.reference, strict=False))
            last = max((step for story in run.stories for step in steps(story)), default=0)
            yield number, last, pairs


def _tells(stories: tuple[Story, ...]) -> bool:
    """Whether any rank told of a state."""
    return any(records(story, Resumed) or records(story, Stepped) for story in stories)
