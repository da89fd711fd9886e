"""The cost of having the supervisor perform every file operation of every rank, in one run.

    python -m benchmarks.interception [--repeat 5] [--only TEXT]

Each body runs as the ranks of a job under the supervisor, and again without it, in turns. An
operation: unbuffered writes of 100 bytes, and new files that are written, synced and renamed. A
save: two ranks, FSDP2, AdamW, the package's manager, until the checkpoint is durable, with a
training step between two saves, so that no two have the same bytes. Rows show the median over
repetitions of the slower rank, and the floors of the same run (`benchmarks.floor`): for operations
a bare notification and a write in the rank's place, for saves one copy of all bytes by one process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from benchmarks.floor import copy_s, notification_us, write_us
from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.config.schema import CheckpointConfig
from tests.harness.run.jobs import supervise

Body = Callable[[Path, int], None]

_WRITES = 5000
_FILES = 400
_SAVES = 9
_BYTES_A_PARAMETER = 12
"""Itself and its two moments."""
_BUDGET_FLOORS = 1.5
_BUDGET_SAVE = 1.5


@dataclass(frozen=True)
class Work:
    """The work of one rank, and the number of operations or saves in its time.

    `size` is the number of bytes of a save.
    """

    name: str
    body: Body
    ranks: int
    parts: int
    size: int = 0


def _note(directory: Path, rank: int, seconds: float) -> None:
    (directory / f"seconds-{rank}").write_text(repr(seconds))


def _small_writes(directory: Path, rank: int) -> None:
    fd = os.open(directory / "checkpoints" / f"file{rank}", os.O_WRONLY | os.O_CREAT)
    data = bytes(100)
    began = time.perf_counter()
    for _ in range(_WRITES):
        os.write(fd, data)
    _note(directory, rank, time.perf_counter() - began)


def _small_files(directory: Path, rank: int) -> None:
    folder = directory / "checkpoints" / f"folder{rank}"
    folder.mkdir()
    began = time.perf_counter()
    for number in range(_FILES):
        fd = os.open(folder / "new", os.O_WRONLY | os.O_CREAT)
        os.write(fd, bytes(1000))
        os.fsync(fd)
        os.close(fd)
        (folder / "new").rename(folder / str(number))
    _note(directory, rank, time.perf_counter() - began)


def _saves(directory: Path, rank: int, *, width: int, layers: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{directory / 'store'}", rank=rank, world_size=2
    )
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, width)).sum().backward()
    optimizer.step()
    config = CheckpointConfig(dir=str(directory / "checkpoints"), keep_last_n=1)
    manager = CheckpointManager(config, model, optimizer)
    manager.save(1)
    times = []
    for step in range(2, 2 + _SAVES):
        optimizer.step()
        dist.barrier()
        began = time.perf_counter()
        manager.save(step)
        times.append(time.perf_counter() - began)
    _note(directory, rank, statistics.median(times))


def _bare(work: Work, directory: Path) -> None:
    (directory / "checkpoints").mkdir(parents=True)
    pids = []
    for rank in range(work.ranks):
        pid = os.fork()
        if pid == 0:
            work.body(directory, rank)
            os._exit(0)
        pids.append(pid)
    if any(os.waitpid(pid, 0)[1] for pid in pids):
        raise SystemExit(f"{work.name}: a rank failed")


def _supervised(work: Work, directory: Path) -> None:
    directory.mkdir()
    _, processes = supervise(work.body, directory, ranks=work.ranks, deadline_s=120)
    if any(processes.exits) or processes.hung:
        raise SystemExit(f"{work.name}: a rank failed under the supervisor: {processes}")


def _timed(run: Callable[[Work, Path], None], work: Work, home: Path) -> float:
    directory = home / "run"
    run(work, directory)
    seconds = max(float((directory / f"seconds-{rank}").read_text()) for rank in range(work.ranks))
    shutil.rmtree(directory)
    return seconds


def _measure(work: Work, home: Path, repeat: int) -> tuple[float, float]:
    bare, supervised = [], []
    for _ in range(repeat):
        bare.append(_timed(_bare, work, home))
        supervised.append(_timed(_supervised, work, home))
    return statistics.median(bare), statistics.median(supervised)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name has this text")
    options = parser.parse_args()
    operations = [
        Work(f"writes of 100 bytes, {ranks} ranks", _small_writes, ranks, _WRITES)
        for ranks in (1, 2)
    ] + [Work("new files, four operations each, 1 rank", _small_files, 1, 4 * _FILES)]
    saves = [
        Work(
            f"save of {label}",
            partial(_saves, width=width, layers=layers),
            2,
            1,
            size=_BYTES_A_PARAMETER * layers * width**2,
        )
        for label, width, layers in (("0.1 MB", 32, 4), ("50 MB", 1024, 4), ("500 MB", 2048, 10))
    ]

    def chosen(works: list[Work]) -> list[Work]:
        return [work for work in works if options.only in work.name]

    print(
        "| an operation | alone us | supervised us | bare us | added, in bare ones | "
        f"in its place us | supervised, in these (<= {_BUDGET_FLOORS}) |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        for work in chosen(operations):
            bare, supervised = _measure(work, Path(home), options.repeat)
            one, other = (1e6 * seconds / work.parts for seconds in (bare, supervised))
            bare_us, place_us = notification_us()[0], write_us()[0]
            print(
                f"| {work.name} | {one:.1f} | {other:.1f} | {bare_us:.1f} | "
                f"{(other - one) / (work.ranks * bare_us):.2f} | {place_us:.1f} | "
                f"{other / (work.ranks * place_us):.2f} |",
                flush=True,
            )
    print(
        f"\n| a save | alone ms | supervised ms | ratio (<= {_BUDGET_SAVE}) | one copy ms | "
        "added, in copies |\n|---|---|---|---|---|---|"
    )
    for place in ("/dev/shm", None):
        with tempfile.TemporaryDirectory(dir=place) as home:
            for work in chosen(saves):
                bare, supervised = _measure(work, Path(home), options.repeat)
                copy = copy_s(work.size, home)
                where = "memory" if place else "disk"
                print(
                    f"| {work.name}, {where} | {1e3 * bare:.1f} | {1e3 * supervised:.1f} | "
                    f"{supervised / bare:.2f} | {1e3 * copy:.1f} | "
                    f"{(supervised - bare) / copy:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
