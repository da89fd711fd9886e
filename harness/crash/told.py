"""The saves that the job had been told of, at each instant of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.evidence.evidence import Evidence
from harness.judge.properties.nothing_lost import claims, told_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The steps that every rank was told are durable, before `place` operations of a run more."""

    place: int
    steps: frozenset[int]


def told_in(evidence: Evidence, run: int) -> Iterator[Told]:
    """The saves that the job knew of when a run began, and after each further one.

    A run with `load_step` goes on from that step, and what was told of later ones is void.
    """
    checkpoint = evidence.plan.checkpoint
    background = checkpoint is not None and checkpoint.async_mode != "disabled"
    steps: frozenset[int] = frozenset()
    for number in range(run + 1):
        load_step = evidence.plan.runs[number].load_step
        if load_step is not None:
            steps = frozenset(step for step in steps if step <= load_step) | {load_step}
        if number < run:
            steps |= told_steps(evidence.runs[number], background=background)
    yield Told(place=0, steps=steps)
    places: dict[int, list[int]] = {}
    stories = evidence.runs[run].stories
    for story in stories:
        for step, place in claims(story, background=background):
            places.setdefault(step, []).append(place)
    for step, told in sorted(places.items(), key=lambda item: max(item[1])):
        if len(told) >= len(stories) and min(told) >= 0:
            steps |= {step}
            yield Told(place=max(told), steps=steps)
