"""`python -m harness explore FILE`: explore the scenarios of a file, with a live count."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

from harness.search.explore.explore import RedRecording
from harness.search.explore.job import Explored
from harness.search.explore.pool import explore_all
from harness.search.explore.strike import Struck
from harness.search.explore.summary import Summary, tell
from harness.workspace import open_workspace


def explore_job(job: Explored, *, workers: int, merge: bool) -> Summary | None:
    """Explore one scenario and print what came of it; None where the recording is red."""
    began = time.monotonic()
    workspace = open_workspace(failures=Path("failures").resolve())
    with closing(workspace):
        try:
            summary = explore_all(
                job, workspace=workspace, workers=workers, merge=merge, progress=_count
            )
        except RedRecording as error:
            sys.stdout.write(f"{job.scenario.name}\n{error}\n")
            return None
    seconds = time.monotonic() - began
    rate = 60 * len(summary.struck) / seconds
    sys.stdout.write(
        f"{tell(summary)}\n{seconds:.0f} s with {workers} workers, {rate:.0f} points a minute\n"
    )
    return summary


def _count(done: int, of: int, newest: Struck) -> None:
    """One line that is written over on a terminal; elsewhere only what is red."""
    red = newest.proof.outcome != "PASS"
    if red:
        sys.stderr.write(f"{newest.proof.outcome}: {newest.name}\n")
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{done} of {of}\x1b[K" + ("\n" if done == of else ""))
    elif done % 50 == 0 or done == of:
        sys.stderr.write(f"{done} of {of}\n")
    sys.stderr.flush()
