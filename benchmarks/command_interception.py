"""The cost of watching a user's command, in one run.

    python -m benchmarks.command_interception [--repeat 5] [--mb 500]

A training script without anything of the harness saves so many megabytes with `torch.save`, syncs
the file and renames it, three times. It is executed as it is and under the supervisor, in turns,
and says itself how long the saves took. Shows the medians and their ratio, in shared memory and on
the disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.jobs.command.program import executed
from harness.run.command.server import CommandServer
from harness.run.command.starting import NAME, Ended, Starts, prepared

_SCRIPT = """\
import os, sys, time
from pathlib import Path
import torch

root, size = Path(sys.argv[1]), int(sys.argv[2]) << 20
root.mkdir(exist_ok=True)
torch.manual_seed(0)
state = {f"layer{n}": torch.rand(size // 40) for n in range(10)}
began = time.perf_counter()
for step in range(3):
    state["layer0"] += 1
    with open(root / "new", "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    (root / "new").rename(root / "latest.pt")
print("seconds", time.perf_counter() - began)
"""
_BUDGET = 1.3
_LIMIT_S = 600.0


@contextmanager
def _starts(folder: Path, megabytes: int) -> Iterator[Starts]:
    script, shown = folder / "train.py", folder / "at"
    script.write_text(_SCRIPT, encoding="utf-8")
    for one in (shown, folder / "server"):
        one.mkdir()
    words = (sys.executable, str(script), str(shown / NAME), str(megabytes))
    program = executed(words, cwd=str(Path.cwd()), environment=os.environ)
    with CommandServer(program, (), folder / "server") as server:
        server.wait_until_ready()
        yield Starts(server, (program,), shown)


def _seconds(ended: Ended) -> float:
    if ended.failed:
        raise SystemExit(f"the script failed:\n{ended.log()}")
    seconds = float(ended.log().split()[-1])
    ended.remove()
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--mb", type=int, default=500)
    options = parser.parse_args()
    print(f"| saves of {options.mb} MB | executed s | watched s | ratio (<= {_BUDGET}) |")
    print("|---|---|---|---|")
    for place in ("/dev/shm", None):
        alone, watched = [], []
        with (
            tempfile.TemporaryDirectory(dir=place) as home,
            _starts(Path(home), options.mb) as starts,
        ):
            run = Path(home, "run")
            for _ in range(options.repeat):
                alone.append(_seconds(starts.run(prepared(run), limit_s=_LIMIT_S)))
                watched.append(_seconds(starts.watch(prepared(run), limit_s=_LIMIT_S).ended))
        one, other = statistics.median(alone), statistics.median(watched)
        where = "in memory" if place else "on the disk"
        print(f"| {where} | {one:.2f} | {other:.2f} | {other / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
