"""Seconds from launch to the first finished training step of all ranks, by launcher.

    python benchmarks/launchers.py [--repeat 3] [--ranks 2] [--only torchrun]

The fork server is up before the clock starts, and so is the SLURM cluster, whose start is shown
separately. With `local` the server forks the ranks, with the others each boots cold. Each line is
the median, with the load of the machine beside it, because other programs share its cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import get_args

from harness.plan.make import make_plan
from harness.plan.model import Implementation, Plan
from harness.run.execute import run_start
from harness.run.launch import cluster
from harness.run.launches import launches
from harness.run.services import Services
from harness.scenario.launcher import Kind, LauncherSettings
from harness.scenario.schema import Run, Scenario
from harness.world import World

_POLL_S = 0.005


def _plan(kind: Kind, ranks: int) -> Plan:
    scenario = Scenario(
        name="launch",
        world=World(dp_shard=ranks),
        device="cpu",
        launcher=LauncherSettings(kind=kind),
        runs=(Run(until_step=1),),
    )
    return make_plan(scenario, source="benchmark", implementation=Implementation(), gpus=0)


def _stepped(folder: Path, ranks: int) -> bool:
    for rank in range(ranks):
        path = folder / "run0" / f"rank{rank}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if "stepped" not in [json.loads(one)["kind"] for one in lines if one.endswith("\n")]:
            return False
    return True


def _seconds(plan: Plan, services: Services) -> float:
    ranks = plan.workload.world.size
    with tempfile.TemporaryDirectory() as name, launches(plan, Path(name), services) as starts:
        folder = Path(name)
        (folder / "plan.json").write_text(plan.model_dump_json(), encoding="utf-8")
        (folder / "checkpoints").mkdir()
        (folder / "run0").mkdir()
        began = time.monotonic()
        launch = starts.launch(0)
        thread = threading.Thread(target=run_start, args=(plan, 0, folder, launch))
        thread.start()
        while not _stepped(folder, ranks):
            time.sleep(_POLL_S)
        taken = time.monotonic() - began
        thread.join()
    return taken


def main() -> None:
    """Print one line for each launcher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Services(Path(name)) as services:
        services.server()
        print("launcher   first step s   all repetitions   load of the machine")
        for kind in get_args(Kind):
            if options.only not in kind or (kind == "slurm" and cluster.missing()):
                continue
            if kind == "slurm":
                began = time.monotonic()
                services.cluster()
                print(f"  start of the cluster: {time.monotonic() - began:.2f} s, once a session")
            plan = _plan(kind, options.ranks)
            taken = [_seconds(plan, services) for _ in range(options.repeat)]
            each = " ".join(f"{one:.2f}" for one in taken)
            print(f"{kind:10} {statistics.median(taken):12.2f}   {each}   {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
