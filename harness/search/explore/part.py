"""One part of an exploration, struck one after the other in this process."""

from __future__ import annotations

from harness.search.explore.explore import choose_points, ends, strike_until_clean
from harness.search.explore.job import Explored
from harness.search.explore.strike import strike
from harness.search.explore.summary import Summary
from harness.trial import Bench


def explore_part(bench: Bench, job: Explored, number: int, parts: int) -> Summary:
    """Strike every `parts`-th point from `number` on, counted from 0."""
    choice = choose_points(bench, job)
    known = choice.broken
    struck = [strike(bench, job, candidate, known) for candidate in choice.chosen[number::parts]]
    for end in ends(job, choice)[number::parts]:
        struck += strike_until_clean(bench, job, end, known)
    part = f"part {number + 1} of {parts}" if parts > 1 else ""
    return Summary(job=job, choice=choice, struck=tuple(struck), part=part)
