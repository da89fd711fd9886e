"""Reports the exploration of crash states: which order was missing, and where."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.crash.explore import Exploration, Hit
from harness.crash.reproduce import Reproduction
from harness.crash.resume import Resumption
from harness.judge.outcome import Outcome
from harness.judge.properties import PROMISES
from harness.layouts.registry import renumber
from harness.plan.model import Plan

_SENTENCE_WIDTH = 110
# The same order is missing in every save; the reader needs it once.
_MOST_CAUSES = 8
_PLACES = re.compile(r"step \d+|operations? \d+( to \d+)?|torn at \d+|-[0-9a-f]{16}")


Attempts = Mapping[int, Sequence[Reproduction]]
"""The outcomes of the hits on real file systems, by the identity of the hit."""


def describe_exploration(
    plan: Plan,
    found: Exploration,
    resumptions: Sequence[Resumption],
    outcome: Outcome,
    attempts: Attempts,
) -> str:
    """Returns the whole report."""
    return "\n".join(
        [
            f"{outcome} {plan.name}: crash states, profile {found.profile}, seed {found.seed}",
            _counts(found),
            *(f"  - {gap}" for gap in found.gaps[:_MOST_CAUSES]),
            *_hits(found, attempts),
            *_resumptions(found, resumptions),
        ]
    )


def _counts(found: Exploration) -> str:
    rate = found.states / found.seconds if found.seconds else 0.0
    return (
        f"{found.operations} operations, {found.instants} instants ({found.sampled} sampled), "
        f"{found.states} states, {found.distinct} distinct, {len(found.hits)} causes of hits; "
        f"{found.seconds:.2f} s, {rate:.0f} states/s"
    )


def shown_hits(hits: Sequence[Hit]) -> tuple[Hit, ...]:
    """Returns the hits reported in full: the first of each property, similar ones once."""
    return tuple(
        same[0]
        for name in PROMISES
        for same in _alike(hit for hit in hits if hit.cause.fault.property == name)[:_MOST_CAUSES]
    )


def _alike(hits: Iterable[Hit]) -> list[list[Hit]]:
    found: dict[str, list[Hit]] = {}
    for hit in hits:
        found.setdefault(_PLACES.sub("#", renumber(hit.cause.sentence, lambda _: 0)), []).append(
            hit
        )
    return list(found.values())


def _hits(found: Exploration, attempts: Attempts) -> Iterator[str]:
    for name, promise in PROMISES.items():
        hits = [hit for hit in found.hits if hit.cause.fault.property == name]
        if hits:
            head = f"VIOLATED {name} ({promise.outcome}): {promise.sentence}"
            yield from textwrap.wrap(head, _SENTENCE_WIDTH, subsequent_indent="  ")
            yield from _causes(hits, attempts)


def _causes(hits: list[Hit], attempts: Attempts) -> Iterator[str]:
    alike = _alike(hits)
    for same in alike[:_MOST_CAUSES]:
        first = same[0]
        states = sum(hit.states for hit in same)
        saves = f", {len(same)} times" if len(same) > 1 else ""
        run, place = first.first
        yield f"  - {first.cause.sentence}"
        yield f"      run {run}, after {place} operations{saves}, {states} states: " + (
            first.cause.fault.text
        )
        tried = [str(one) for one in attempts.get(id(first), ())]
        yield f"      {'; '.join(tried) or 'not tried on a real file system'}"
    if len(alike) > _MOST_CAUSES:
        yield f"  - and {len(alike) - _MOST_CAUSES} more like these"


def _resumptions(found: Exploration, resumptions: Sequence[Resumption]) -> Iterator[str]:
    if not resumptions:
        return
    seconds = sum(one.seconds for one in resumptions)
    yield (
        f"resumed from {len(resumptions)} of {len(found.resumable)} states that a resume can "
        f"distinguish, {seconds / len(resumptions):.2f} s each"
    )
    for one in resumptions:
        if one.judgement.outcome != "PASS":
            reasons = [f"{v.property}: {v.details[0]}" for v in one.judgement.verdicts
                       if v.is_red() and v.details]  # fmt: skip
            reasons += [f"{g.name}: {g.details[0]}" for g in one.judgement.guards if not g.passed]
            yield (
                f"  - run {one.state.run}, after {one.state.place} operations: "
                f"{one.judgement.outcome}, {reasons[0] if reasons else 'no reason given'}"
            )
            yield f"      {one.directory}"
