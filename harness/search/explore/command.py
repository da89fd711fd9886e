"""`python -m harness explore FILE`: explores the scenarios of a file, with a live count."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, as_completed
from contextlib import closing
from pathlib import Path

from harness.plan.model import Implementation
from harness.search.explore.explore import RedBaseline, choose_points, ends, strike_until_clean
from harness.search.explore.job import Explored
from harness.search.explore.points import Candidate, ChosenPoints
from harness.search.explore.strike import StrikeOutcome, strike
from harness.search.explore.summary import Summary, describe_summary
from harness.search.pool import Pool
from harness.trial import Bench
from harness.workspace import open_workspace

Progress = Callable[[int, int, StrikeOutcome], None]
"""Called with how many strikes are done, how many there are, and the newest."""


def explore_job(
    job: Explored, *, implementation: Implementation, workers: int, merge: bool
) -> Summary | None:
    """Explore one scenario and print the result; returns None if nothing could be struck."""
    began = time.monotonic()
    workspace = open_workspace(failures=Path("failures").resolve())
    with closing(workspace), Pool(workspace, workers, implementation=implementation) as pool:
        try:
            summary = explore_all(job, pool, merge=merge, progress=_count)
        except RedBaseline as error:
            sys.stdout.write(f"{job.scenario.name}\n{error}\n")
            return None
    seconds = time.monotonic() - began
    rate = 60 * len(summary.struck) / seconds
    sys.stdout.write(
        f"{describe_summary(summary)}\n"
        f"{seconds:.0f} s with {workers} workers, {rate:.0f} points a minute\n"
    )
    return summary


def explore_all(job: Explored, pool: Pool, *, merge: bool, progress: Progress) -> Summary:
    """Strike every chosen point, several at once. Raises RedBaseline."""
    choice = pool.submit(_choose, job, merge).result()
    coming: list[Future[tuple[StrikeOutcome, ...]]] = [
        pool.submit(_strike, job, candidate, choice.broken) for candidate in choice.chosen
    ]
    coming += [
        pool.submit(strike_until_clean, job, end, choice.broken) for end in ends(job, choice)
    ]
    for done, future in enumerate(as_completed(coming), 1):
        progress(done, len(coming), future.result()[-1])
    struck = tuple(one for future in coming for one in future.result())
    return Summary(job=job, choice=choice, struck=struck)


def _choose(bench: Bench, job: Explored, merge: bool) -> ChosenPoints:
    return choose_points(bench, job, merge=merge)


def _strike(
    bench: Bench, job: Explored, candidate: Candidate, known: tuple[str, ...]
) -> tuple[StrikeOutcome, ...]:
    return (strike(bench, job, candidate, known),)


def _count(done: int, of: int, newest: StrikeOutcome) -> None:
    """Show one line that is overwritten on a terminal; elsewhere only what is red."""
    red = newest.proof.outcome != "PASS"
    if red:
        sys.stderr.write(f"{newest.proof.outcome}: {newest.name}\n")
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {of}\x1b[K" + ("\n" if done == of else ""))
