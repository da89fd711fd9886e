"""Seconds from launch to the first finished training step, cold and warm, in one run.

    python benchmarks/launch.py [--repeat 3] [--ranks 1 2 4]

Cold: one new Python process a rank. Warm: the harness's server forks the ranks; its boot, paid once
a session, is shown apart. Each cell is the median; the machine is shared, so take the ratio.
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

from harness.layout.plain import PlainLayout
from harness.plan.make import make_plan, reference_plan
from harness.plan.model import Implementation
from harness.run.server import WarmServer
from harness.run.supervise import Supervisor, Watch
from harness.scenario.schema import Run, Scenario, World

_POLL_S = 0.001


def _prepare(folder: Path, ranks: int) -> None:
    scenario = Scenario(
        name="launch", world=World(dp_shard=ranks), device="cpu", runs=(Run(until_step=1),)
    )
    plan = make_plan(scenario, source="benchmark", implementation=Implementation(), gpus=0)
    text = reference_plan(plan).model_dump_json()
    (folder / "plan.json").write_text(text, encoding="utf-8")
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
    command = [sys.executable, "-m", "harness.job.rank", str(folder), "0"]
    processes = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.DEVNULL) for rank in range(ranks)
    ]

    def finish() -> None:
        for process in processes:
            process.wait()

    return finish


def _warm(server: WarmServer, folder: Path, ranks: int) -> Callable[[], None]:
    link = server.start(directory=folder, run=0, ranks=ranks, reads=False)
    watch = Watch(
        folder=folder / "run0",
        root=folder / "checkpoints",
        ranks=ranks,
        layout=PlainLayout(),
        strikes=(),
        deadline_s=120,
    )
    supervisor = Supervisor(link, watch)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    return thread.join


def _seconds(launch: Callable[[Path, int], Callable[[], None]], ranks: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, ranks)
        began = time.monotonic()
        finish = launch(folder, ranks)
        while not _stepped(folder, ranks):
            time.sleep(_POLL_S)
        taken = time.monotonic() - began
        finish()
    return taken


def main() -> None:
    """Print one line for each number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        with WarmServer(Path(name, "server.log")) as server:
            server.wait_until_ready()
            print(f"boot of the warm server: {time.monotonic() - began:.2f} s, once a session")
            print("ranks   cold s   warm s   ratio")
            for ranks in options.ranks:
                cold = [_seconds(_cold, ranks) for _ in range(options.repeat)]
                warm = [
                    _seconds(lambda folder, count: _warm(server, folder, count), ranks)
                    for _ in range(options.repeat)
                ]
                slow, fast = statistics.median(cold), statistics.median(warm)
                print(f"{ranks:5d} {slow:8.2f} {fast:8.2f} {slow / fast:7.1f}")


if __name__ == "__main__":
    main()
