"""The processor time of one kill-resume-judge point, which hardly depends on other load.

    python -m benchmarks.point [--repeat 15]

Two ranks train, save, are killed while they seal their second save, resume, train on, are judged:
the same as one point of `benchmarks.explore`. The evidence gives the processor time of the ranks
and of the job launcher; the rest is the worker's own: the supervisor's, that of reading and writing
the evidence, and the judges'. The last lines say how many points two idle cores could make per
minute if nothing ever waited, and how many bare notifications (`benchmarks.floor`) a point is worth
on this machine, now: that number can be compared with another machine's.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.floor import notification_us
from harness.faults.base import Target
from harness.faults.kill import Kill
from harness.faults.point import Point
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.schema import Checkpoint, Run, Scenario
from harness.world import World

_CORES = 2
_PARTS = ("first run s", "second run s", "worker, runs s", "worker, judging s", "all s", "wall s")


def one_point() -> Plan:
    """Returns a plan of two ranks, killed before the first write that seals their second save."""
    at = Point(rank=0, save=2, phase="seal", operation="write")
    scenario = Scenario(
        name="benchmark: one point",
        world=World(dp_shard=2),
        checkpoint=Checkpoint(interval=2, keep_last_n=1),
        runs=(Run(until_step=4, faults=(Kill(kill=Target(rank="all"), at=at),)), Run(until_step=6)),
    )
    return make_plan(scenario, source="", implementation=Implementation())


def measure(plan: Plan, directory: Path, services: Services) -> tuple[float, ...]:
    """Run and judge the point once; returns its parts."""
    began, own = time.monotonic(), time.process_time()
    evidence = execute(plan, directory, services)
    executed = time.process_time()
    outcome = judge(evidence).outcome
    judged, wall = time.process_time(), time.monotonic() - began
    if outcome is not Outcome.PASS:
        raise SystemExit(f"the point is {outcome}; see {directory}")
    shutil.rmtree(directory)
    first, second = (run.processes.cpu_s for run in evidence.runs)
    return first, second, executed - own, judged - executed, first + second + judged - own, wall


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=15)
    options = parser.parse_args()
    plan = one_point()
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as home,
        Services(Path(home) / "shared") as services,
    ):
        measure(plan, Path(home) / "first", services)
        found = [
            measure(plan, Path(home) / str(number), services) for number in range(options.repeat)
        ]
    medians = [statistics.median(values) for values in zip(*found, strict=True)]
    print(f"| {' | '.join(_PARTS)} |\n|{'---|' * len(_PARTS)}")
    print(f"| {' | '.join(f'{value:.3f}' for value in medians)} |")
    print(f"\nat most {60 * _CORES / medians[4]:.0f} points a minute on {_CORES} idle cores")
    _, floor_us = notification_us()
    print(
        f"a point is worth {1e6 * medians[4] / floor_us:.0f} bare notifications "
        f"({floor_us:.1f} us of processor time each)"
    )


if __name__ == "__main__":
    main()
