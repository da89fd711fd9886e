"""Seconds from launch to the first finished training step, cold and warm, in one run.

    python benchmarks/launch.py [--repeat 3] [--ranks 1 2 4]

Cold: one new Python process per rank. Warm: the harness's server forks the ranks; its boot, paid
once per session, is shown separately. The ranks train without a checkpoint manager, as a reference
run does; the last column adds one: its import, its groups, and the search for a checkpoint to
resume from. Each cell is the median; the machine is shared, so take the ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness.layouts.registry import DEFAULT, LAYOUTS
from harness.plan.make import make_plan, reference_plan
from harness.plan.model import Implementation, Plan
from harness.run.backing import Folder
from harness.run.launch.local import LocalLaunch
from harness.run.server import ForkServer, Start
from harness.run.supervise import Supervisor, Watch
from harness.scenario.schema import Run, Scenario
from harness.world import World

_POLL_S = 0.001


def _plan(ranks: int) -> Plan:
    scenario = Scenario(
        name="launch", world=World(dp_shard=ranks), device="cpu", runs=(Run(until_step=1),)
    )
    return make_plan(scenario, source="benchmark", implementation=Implementation(), gpus=0)


def _prepare(folder: Path, plan: Plan) -> None:
    (folder / "plan.json").write_text(plan.model_dump_json(), encoding="utf-8")
    (folder / "checkpoints").mkdir()
    (folder / "run0").mkdir()


def _stepped(folder: Path, ranks: int) -> bool:
    for rank in range(ranks):
        path = folder / "run0" / f"rank{rank}.jsonl"
        if not path.exists():
            return False
        kinds = [json.loads(line)["kind"] for line in path.read_text().splitlines()]
        if "stepped" not in kinds:
            return False
    return True


def _cold(folder: Path, ranks: int) -> Callable[[], None]:
    command = [sys.executable, "-m", "harness.jobs.training.rank", str(folder), "0"]
    processes = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.DEVNULL) for rank in range(ranks)
    ]

    def finish() -> None:
        for process in processes:
            process.wait()

    return finish


def _warm(server: ForkServer, folder: Path, ranks: int) -> Callable[[], None]:
    link = server.start(Start(directory=folder, run=0, world=World(dp_shard=ranks), reads=False))
    watch = Watch(
        folder=folder / "run0",
        root=folder / "checkpoints",
        ranks=ranks,
        layout=LAYOUTS[DEFAULT],
        strikes=(),
        deadline_s=120,
        cut_power=Folder().cut,
    )
    supervisor = Supervisor(LocalLaunch(link), watch)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    return thread.join


def _seconds(launch: Callable[[Path, int], Callable[[], None]], plan: Plan) -> float:
    ranks = plan.workload.world.size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, plan)
        began = time.monotonic()
        finish = launch(folder, ranks)
        while not _stepped(folder, ranks):
            time.sleep(_POLL_S)
        taken = time.monotonic() - began
        finish()
    return taken


def _report(server: ForkServer, ranks: int, repeat: int) -> None:
    def warm(folder: Path, count: int) -> Callable[[], None]:
        return _warm(server, folder, count)

    managed = _plan(ranks)
    bare = reference_plan(managed)
    cold_s = statistics.median(_seconds(_cold, bare) for _ in range(repeat))
    warm_s = statistics.median(_seconds(warm, bare) for _ in range(repeat))
    managed_s = statistics.median(_seconds(warm, managed) for _ in range(repeat))
    print(f"{ranks:5d} {cold_s:8.2f} {warm_s:8.2f} {cold_s / warm_s:7.1f} {managed_s:16.2f}")


def main() -> None:
    """Print one line for each number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        with ForkServer(Path(name, "server.log")) as server:
            server.wait_until_ready()
            print(f"boot of the fork server: {time.monotonic() - began:.2f} s, once a session")
            print("ranks   cold s   warm s   ratio  warm + manager s")
            for ranks in options.ranks:
                _report(server, ranks, options.repeat)


if __name__ == "__main__":
    main()
