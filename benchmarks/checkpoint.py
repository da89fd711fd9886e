"""Saves and loads beside torch.distributed.checkpoint (DCP), in one run, with the floors.

    python -m benchmarks.checkpoint [--sizes 50 500 1500 many] [--repeat 5] [--loops 12]
                                    [--beside NAME ...] [--device cpu|cuda] [--dir DIR]

FSDP2, AdamW; two ranks over gloo on the CPU, or one that has the whole state on a GPU. Competitors
take turns within each repetition, and a cell is the median over repetitions of the slower rank.
Everything is printed as ratios, because the machine may be shared. The printed tables are those of
docs/performance.md and docs/gpu.md. DCP gets a state dict that was assembled before, which is not
counted; everything of ours is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import math
import multiprocessing
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from zlib_ng import zlib_ng

from benchmarks.competitors import (
    SHAPES,
    Competitor,
    Dcp,
    DurableDcp,
    Ours,
    PlainWrite,
    TorchSave,
    Training,
    training_of,
)
from benchmarks.tables import (
    COPY,
    GPU_MEMORY,
    LOAD,
    LOST,
    MEMORY,
    PUBLISHED,
    SAVE,
    Times,
    describe_times,
)
from harness.system.syscalls import syncfs
from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig

_RANKS = {"cpu": 2, "cuda": 1}
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
_DEADLINE_S = 900.0
_LOOP_MARGIN = 1.3
_PR_SET_PDEATHSIG = 1

Repeats = tuple[int, int, tuple[str, ...]]
"""How often: rounds of saves and loads, loops of training, and the savers that loops run beside."""


def _timed(call: Callable[[], object]) -> float:
    _finish_kernels()
    began = time.perf_counter()
    call()
    _finish_kernels()
    return time.perf_counter() - began


def _finish_kernels() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


@dataclass
class Measurements:
    """All measurements of one size on one rank."""

    size: str
    repeat: int
    loops: int
    beside: tuple[str, ...]
    """Parts of the names of the savers beside which loops are measured."""
    device: str
    home: Path
    times: Times = field(default_factory=dict)
    steps: int = 0
    began: float = field(default_factory=time.perf_counter)

    def run(self) -> None:
        training = training_of(self.size, self.device, seed=1)
        for _ in range(2):
            training.step()
        self._note("bytes", "rank", float(training.bytes()))
        model, optimizer = get_state_dict(training.model, training.optimizer)
        state = {"model": model, "optimizer": optimizer}
        waiting: list[Competitor] = [
            Ours(training, self.home, AsyncCheckpointMode.disabled),
            Dcp(state, self.home, None),
            DurableDcp(state, self.home),
            TorchSave(training, self.home),
            PlainWrite(training, self.home, background=False),
        ]
        background: list[Competitor] = [
            Ours(training, self.home, AsyncCheckpointMode.async_),
            Ours(training, self.home, AsyncCheckpointMode.async_, cached=True),
            Ours(training, self.home, AsyncCheckpointMode.async_pinned),
            Dcp(state, self.home, AsyncCheckpointerType.THREAD),
            Dcp(state, self.home, AsyncCheckpointerType.PROCESS),
            PlainWrite(training, self.home, background=True),
        ]
        for competitor in (*waiting, *background):
            self._first(competitor)
            self._say(f"first save of {competitor.name}")
        for turn in range(self.repeat):
            self._copies(training)
            for competitor in _rotated(waiting, turn):
                self._sync(competitor)
            for competitor in _rotated(background, turn):
                self._async(competitor)
            if turn == 0 and self.size == "many":
                # It passes a descriptor per tensor: half a minute a save.
                background = [each for each in background if each.name != "DCP PROCESS"]
            self._say("a round of saves")
        if self.device == "cpu":
            # It then runs the same code as async, and a loop takes long.
            background = [each for each in background if each.name != "kempnerforge pinned"]
        background = [each for each in background if any(name in each.name for name in self.beside)]
        for turn in range(self.loops):
            for competitor in background:
                self._lost(competitor, training, turn)
                self._say(f"a loop with {competitor.name}")
        self._loads(waiting)

    def _say(self, done: str) -> None:
        if dist.get_rank() == 0:
            print(
                f"{time.perf_counter() - self.began:7.1f} s  {self.size}: {done}", file=sys.stderr
            )

    def _note(self, measure: str, name: str, value: float) -> None:
        self.times.setdefault((measure, name), []).append(value)

    def _begin(self, competitor: Competitor) -> None:
        self.steps += 1
        competitor.begin(self.steps)

    def _first(self, competitor: Competitor) -> None:
        """Measures the save that allocates; also warms up everything that is imported late."""
        dist.barrier()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _memory("VmRSS")
        with self._gpu_memory(competitor.name):
            self._begin(competitor)
            competitor.finish()
        self._note(MEMORY, competitor.name, _memory("VmHWM") - before)
        competitor.clean()

    @contextlib.contextmanager
    def _gpu_memory(self, name: str) -> Iterator[None]:
        """Notes how much more of the GPU was in use at the peak than before."""
        if self.device == "cpu":
            yield
            return
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield
        _finish_kernels()
        self._note(GPU_MEMORY, name, torch.cuda.max_memory_allocated() - before)

    def _copies(self, training: Training) -> None:
        tensors = training.tensors()
        size = sum(tensor.nbytes for tensor in tensors)
        whole = torch.ones(size, dtype=torch.uint8, device=self.device)
        target = torch.zeros(size, dtype=torch.uint8, pin_memory=self.device == "cuda")
        for _ in range(3):
            dist.barrier()
            self._note("copy", "copy", _timed(lambda: target.copy_(whole)))

    def _settle(self) -> None:
        """Flushes the disk, so that no competitor pays for the one before."""
        dist.barrier()
        if dist.get_rank() == 0:
            syncfs(str(self.home))
        dist.barrier()

    def _sync(self, competitor: Competitor) -> None:
        self._settle()
        self._note(SAVE, competitor.name, _timed(lambda: self._begin(competitor)))
        competitor.clean()

    def _async(self, competitor: Competitor) -> None:
        self._settle()
        _finish_kernels()
        began = time.perf_counter()
        self._begin(competitor)
        self._note(COPY, competitor.name, time.perf_counter() - began)
        competitor.finish()
        self._note(PUBLISHED, competitor.name, time.perf_counter() - began)
        competitor.clean()

    def _lost(self, competitor: Competitor, training: Training, turn: int) -> None:
        """Times a loop that outlasts the save, with the save and without, in alternating order."""
        flush = statistics.median(self.times[PUBLISHED, competitor.name])
        one = statistics.median(_timed(training.step) for _ in range(3))
        steps = _agreed_max(max(3.0, math.ceil(_LOOP_MARGIN * flush / one)))

        def loop() -> None:
            for _ in range(int(steps)):
                training.step()

        def loop_with_save() -> None:
            self._begin(competitor)
            loop()
            competitor.finish()

        took = {}
        for call in (loop, loop_with_save) if turn % 2 else (loop_with_save, loop):
            self._settle()
            took[call] = _timed(call)
        competitor.clean()
        self._note(LOST, competitor.name, took[loop_with_save] - took[loop])

    def _loads(self, saved: Sequence[Competitor]) -> None:
        ours, dcp = saved[0], saved[1]
        assert isinstance(ours, Ours)
        assert isinstance(dcp, Dcp)
        source = ours.directory / "latest"
        for turn in range(self.repeat):
            fresh = training_of(self.size, self.device, seed=10 + turn)
            config = CheckpointConfig(dir=str(ours.directory))
            manager = CheckpointManager(config, fresh.model, fresh.optimizer)
            dist.barrier()
            with self._gpu_memory("load: kempnerforge"):
                self._note(LOAD, "kempnerforge", _timed(manager.load))
            del manager, fresh  # sharded models are full of cycles
            gc.collect()
            self._read(source / f"__{dist.get_rank()}_0.distcp")
            fresh = training_of(self.size, self.device, seed=20 + turn)
            dist.barrier()
            with self._gpu_memory("load: get_state_dict + dcp.load"):
                self._load_dcp(fresh, dcp)
            del fresh
            gc.collect()

    def _load_dcp(self, fresh: Training, saved: Dcp) -> None:
        state: dict[str, Any] = {}

        def prepare() -> None:
            model, optimizer = get_state_dict(fresh.model, fresh.optimizer)
            state.update(model=model, optimizer=optimizer)

        prepared = _timed(prepare)
        dist.barrier()
        reader = FileSystemReader(saved.directory)
        took = _timed(lambda: dcp_load(state, storage_reader=reader))
        self._note(LOAD, "dcp.load", took)
        self._note(LOAD, "get_state_dict + dcp.load", prepared + took)

    def _read(self, path: Path) -> None:
        size = path.stat().st_size
        used = torch.zeros(size, dtype=torch.uint8)

        def read(target: torch.Tensor) -> memoryview:
            raw: Any = target.numpy()
            data = memoryview(raw)
            with path.open("rb", buffering=0) as file:
                file.readinto(data)
            return data

        def read_anew() -> None:
            zlib_ng.crc32(read(torch.empty(size, dtype=torch.uint8)))

        dist.barrier()
        self._note(LOAD, "floor: plain read", _timed(lambda: read(used)))
        dist.barrier()
        self._note(LOAD, "floor: read into new memory, crc32", _timed(read_anew))


def _rotated(competitors: list[Competitor], turn: int) -> list[Competitor]:
    first = turn % len(competitors)
    return competitors[first:] + competitors[:first]


def _memory(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return float(line.split()[1]) * 1024
    raise KeyError(key)


def _agreed_max(value: float) -> float:
    held = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(held, op=dist.ReduceOp.MAX)
    return held.item()


def _rank_main(pipe: Any, rank: int, size: str, repeats: Repeats, device: str, home: Path) -> None:
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # even if the parent is killed
    try:
        meeting = f"file://{home / 'store'}"
        dist.init_process_group(
            _BACKENDS[device], init_method=meeting, rank=rank, world_size=_RANKS[device]
        )
        bench = Measurements(size, *repeats, device, home)
        bench.run()
        pipe.send(bench.times)
        dist.barrier()
    except BaseException:  # noqa: BLE001  # travels to the parent, which shows it
        pipe.send(traceback.format_exc())
    finally:
        pipe.close()
        os._exit(0)  # the daemon of DCP's PROCESS mode is a child that ends with its pipe


def measure(size: str, repeats: Repeats, device: str, home: Path) -> Times:
    """Returns one size's times, of the slower rank; no process outlives the call."""
    context = multiprocessing.get_context("spawn")
    home.mkdir(parents=True)
    processes, pipes = [], []
    for rank in range(_RANKS[device]):
        here, there = context.Pipe(duplex=False)
        words = (there, rank, size, repeats, device, home)
        process = context.Process(target=_rank_main, args=words)
        process.start()
        there.close()
        processes.append(process)
        pipes.append(here)
    try:
        return _slower([_received(pipe) for pipe in pipes])
    finally:
        for process in processes:
            process.join(10)
            process.kill()
            process.join()
        shutil.rmtree(home, ignore_errors=True)


def _received(pipe: Any) -> Times:
    if not pipe.poll(_DEADLINE_S):
        raise SystemExit("a rank did not answer in time")
    found = pipe.recv()
    if isinstance(found, str):
        raise SystemExit(found)
    times: Times = found
    return times


def _slower(ranks: Sequence[Times]) -> Times:
    return {
        key: [max(values) for values in zip(*(rank[key] for rank in ranks), strict=True)]
        for key in ranks[0]
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--loops", type=int, default=12, help="of training beside a save")
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[""],
        help="parts of names of the savers beside which loops run",
    )
    parser.add_argument("--device", choices=list(_RANKS), default="cpu")
    parser.add_argument("--dir", type=Path, default=None, help="where to write; default: /tmp")
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        found: dict[str, Times] = {}
        for size in options.sizes:
            repeats = (options.repeat, options.loops, tuple(options.beside))
            found[size] = measure(size, repeats, options.device, Path(name, size))
            print(describe_times(found, budgets=options.device == "cpu"), flush=True)


if __name__ == "__main__":
    main()
