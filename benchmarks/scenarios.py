"""Seconds of each default scenario, one after the other in one process.

    python benchmarks/scenarios.py [--only sync] [--repeat 3]

The reference runs are shared by scenarios and made before the clock starts. Each line is the median
of all its repetitions: running the job's starts, then judging.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.judge.judge import judge
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.read import ScenarioFile, read_file

_SCENARIOS = Path(__file__).parents[1] / "scenarios"


def _plans(only: str) -> Iterator[Plan]:
    for path in sorted(_SCENARIOS.rglob("*.yaml")):
        shown = path.relative_to(_SCENARIOS).as_posix()
        if only not in shown:
            continue
        for label, found in read_file(path, gpus=0).items():
            if isinstance(found, ScenarioFile) and found.scenario.explore is None:
                name = f"{shown}::{label}" if label else shown
                yield make_plan(found.scenario, source=name, implementation=Implementation())


def _measure(plan: Plan, folder: Path, services: Services) -> tuple[float, float, str]:
    began = time.monotonic()
    evidence = execute(plan, folder, services)
    ran = time.monotonic()
    outcome = judge(evidence).outcome
    return ran - began, time.monotonic() - ran, outcome


def main() -> None:
    """Print one line per scenario, the slowest last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a part of the file's path")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name,
        Services(Path(name, "services")) as services,
    ):
        rows = []
        for number, plan in enumerate(_plans(options.only)):
            execute(plan, Path(name, f"{number}-warm-up"), services)
            measured = [
                _measure(plan, Path(name, f"{number}-{repetition}"), services)
                for repetition in range(options.repeat)
            ]
            ran = statistics.median(row[0] for row in measured)
            judged = statistics.median(row[1] for row in measured)
            rows.append((ran + judged, ran, judged, plan.workload.world.size, plan.source))
            outcomes = {row[2] for row in measured}
            if outcomes != {"PASS"}:
                print(f"{plan.source}: {', '.join(sorted(outcomes))}")
        print("total s   run s  judge s  ranks  scenario")
        for total, ran, judged, ranks, source in sorted(rows):
            print(f"{total:7.2f} {ran:7.2f} {judged:8.3f} {ranks:6d}  {source}")


if __name__ == "__main__":
    main()
