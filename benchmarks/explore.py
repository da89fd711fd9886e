"""Kill-resume-judge points a minute, with one worker and with two.

    python -m benchmarks.explore [--points 30] [--equal] [--workers 1 2]

Two ranks, a synchronous save every second step, all ranks killed at one operation, resumed, judged.
Booting the fork servers, the baseline trace and the reference run are not counted: the clock starts
when the first strike is over. `--equal` also strikes equal points, as an exploration without
merging would.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

from harness.scenario.exploration import Explore
from harness.scenario.schema import Checkpoint, Run, Scenario
from harness.search.explore.command import explore_all
from harness.search.explore.job import Explored
from harness.search.explore.strike import StrikeOutcome
from harness.search.explore.summary import headline
from harness.search.pool import Pool
from harness.workspace import open_workspace
from harness.world import World


def measure(workers: int, *, points: int, merge: bool) -> None:
    """Explore with so many workers and print the result."""
    scenario = Scenario(
        name="benchmark: killed anywhere",
        world=World(dp_shard=2),
        checkpoint=Checkpoint(interval=2, keep_last_n=1),
        runs=(Run(until_step=4), Run(until_step=6)),
        explore=Explore(budget=points),
    )
    job = Explored(scenario=scenario, shown="")
    ended: list[float] = []

    def note(_done: int, _of: int, _newest: StrikeOutcome) -> None:
        ended.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        workspace = open_workspace(failures=Path(folder))
        with closing(workspace), Pool(workspace, workers, gpus=0) as pool:
            summary = explore_all(job, pool, merge=merge, progress=note)
    rate = 60 * (len(ended) - 1) / (ended[-1] - ended[0])
    print(f"{workers} workers: {rate:.0f} points a minute; {headline(summary)}")


def main() -> None:
    """Print one line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=30)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--equal", action="store_true", help="strike equal points, too")
    options = parser.parse_args()
    for workers in options.workers:
        measure(workers, points=options.points, merge=not options.equal)


if __name__ == "__main__":
    main()
