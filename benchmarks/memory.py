"""The memory of the harness for a job that writes much, in one run.

    python -m benchmarks.memory [--gigabytes 20] [--place /tmp]

Two ranks train, save after each step and keep the last two checkpoints, until they have written as
much as was requested. Rows show by how much the memory of this process peaks above its start, while
it supervises the job, reads what the job left, judges it and goes through its crash states; ranks
are not counted. Bytes are written twice: by the job, and by the evidence. So `--place` needs room
for both, on a disk: files in shared memory are memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.crash.explore import explore
from harness.evidence.evidence import Evidence
from harness.evidence.read import read_evidence
from harness.judge.judge import judge
from harness.judge.outcome import Outcome
from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.execute import execute
from harness.run.services import Services
from harness.scenario.schema import Checkpoint, Run, Scenario
from harness.scenario.training import Model
from harness.world import World

MB = 1 << 20
_BUDGET_MB = 2048

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class MeasuredPhase:
    """A part of the work: its peak above the beginning, and its time."""

    name: str
    peak_mb: float
    seconds: float


def writing_job(*, dim: int, layers: int, saves: int) -> Plan:
    """Returns a job of two ranks that save after each step: about 96 bytes x layers x dim^2."""
    scenario = Scenario(
        name="benchmark: a job that writes much",
        world=World(dp_shard=2),
        model=Model(dim=dim, layers=layers),
        checkpoint=Checkpoint(interval=1, keep_last_n=2),
        runs=(Run(until_step=saves),),
    )
    return make_plan(scenario, source="", implementation=Implementation())


def measure(plan: Plan, directory: Path, services: Services) -> tuple[int, list[MeasuredPhase]]:
    """Run and judge; returns how many bytes were written, and the phases."""
    phases: list[MeasuredPhase] = []
    evidence = _measured("run", lambda: execute(plan, directory, services), phases)
    written = sum(
        one.size for run in evidence.runs for one in run.operations if one.kind == "write"
    )
    evidence = _measured("read", lambda: read_evidence(directory), phases)
    judgement = _measured("judge", lambda: judge(evidence), phases)
    if judgement.outcome is not Outcome.PASS:
        raise SystemExit(f"the job is {judgement.outcome}; see {directory}")
    _measured("crash states", lambda: _crash_states(evidence), phases)
    return written, phases


def _crash_states(evidence: Evidence) -> None:
    found = explore(evidence, most=4)
    if found.gaps or not found.states:
        raise SystemExit(f"no crash states: {found.gaps}")


def _measured(name: str, work: Callable[[], Found], phases: list[MeasuredPhase]) -> Found:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before, began = _status_mb("VmRSS"), time.monotonic()
    found = work()
    peak = _status_mb("VmHWM") - before
    phases.append(MeasuredPhase(name=name, peak_mb=peak, seconds=time.monotonic() - began))
    return found


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    dim, layers = 1024, 5
    saves = max(3, round(options.gigabytes * 1e9 / (96 * layers * dim**2)))
    with (
        tempfile.TemporaryDirectory(dir=options.place) as home,
        Services(Path(home) / "shared") as services,
    ):
        plan = writing_job(dim=dim, layers=layers, saves=saves)
        written, phases = measure(plan, Path(home) / "run", services)
    print(f"{written / 1e9:.1f} GB written by {saves} saves\n")
    print(f"| phase | peak MB (<= {_BUDGET_MB}) | seconds |\n|---|---|---|")
    for one in phases:
        print(f"| {one.name} | {one.peak_mb:.0f} | {one.seconds:.0f} |")


if __name__ == "__main__":
    main()
