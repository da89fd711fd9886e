"""A power cut beside a kill in the same place: seconds of a whole point, and of the disk alone.

    python -m benchmarks.power_cuts [--rounds 5]

A point is a job of two ranks that trains, is struck, resumes, and is judged. The two kinds take
turns, so that other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness.faults.base import Target
from harness.faults.kill import Kill
from harness.judge.judge import judge
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.disk import DiskImage
from harness.run.execute import execute
from harness.run.services import Services
from harness.run.support import missing_disk
from harness.scenario.errors import ScenarioError
from harness.scenario.read import read_file
from harness.system.mounts import own_mounts
from harness.words import FILE_SYSTEMS
from harness.workspace import open_workspace

_FILE = Path(__file__).parents[1] / "scenarios/power/after-a-save.yaml"
_COLUMNS = ("file system", "point with a kill, s", "point with a power cut, s", "disk alone, s")


def _plan(filesystem: str) -> Plan:
    one = read_file(_FILE, gpus=0)[filesystem]
    if isinstance(one, ScenarioError):
        raise one
    return make_plan(one.scenario, source=str(_FILE), implementation=Implementation())


def _killed(plan: Plan) -> Plan:
    """Returns the same plan with a kill of all ranks in place of the cut."""
    first = plan.runs[0]
    strikes = [
        one.model_copy(update={"fault": Kill(kill=Target(), at=one.point)}) for one in first.strikes
    ]
    runs = (first.model_copy(update={"strikes": tuple(strikes)}), *plan.runs[1:])
    return plan.model_copy(update={"runs": runs})


def _point(plan: Plan, directory: Path, services: Services) -> float:
    began = time.perf_counter()
    outcome = judge(execute(plan, directory, services)).outcome
    if outcome != "PASS":
        raise SystemExit(f"{plan.name}: {outcome}")
    return time.perf_counter() - began


def _cycle(filesystem: str, folder: Path) -> float:
    """Format, mount, cut, mount again and unmount, with nothing on the disk."""
    (folder / "root").mkdir(parents=True)
    began = time.perf_counter()
    with own_mounts():
        disk = DiskImage(filesystem, folder / "image", folder / "root")
        disk.format()
        disk.mount()
        disk.cut("lost")
        disk.restart()
        disk.unmount()
    disk.remove()
    return time.perf_counter() - began


def _rows(base: Path, services: Services, rounds: int) -> Iterator[tuple[str, ...]]:
    for filesystem in FILE_SYSTEMS:
        if missing_disk(filesystem) is not None:
            continue
        plan = _plan(filesystem)
        times: dict[str, list[float]] = {"kill": [], "cut": [], "disk": []}
        _point(_killed(plan), base / f"{filesystem}-first", services)
        for number in range(rounds):
            place = base / f"{filesystem}-{number}"
            place.mkdir()
            times["kill"].append(_point(_killed(plan), place / "kill", services))
            times["cut"].append(_point(plan, place / "cut", services))
            times["disk"].append(_cycle(filesystem, place / "disk"))
        medians = {name: statistics.median(found) for name, found in times.items()}
        yield (filesystem, *(f"{seconds:.2f}" for seconds in medians.values()))


def main() -> None:
    """Print one line per file system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        workspace = open_workspace(failures=Path(name, "failures"))
        with Services(workspace.shared) as services:
            base = workspace.new_run("power-cuts")
            print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}")
            for row in _rows(base, services, options.rounds):
                print(f"| {' | '.join(row)} |", flush=True)
            workspace.drop(base)
        workspace.close()


if __name__ == "__main__":
    main()
