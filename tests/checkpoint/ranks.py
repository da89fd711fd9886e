"""Runs a function on several ranks of a real gloo job, forked from a server that has torch loaded.

The function and its arguments are pickled, so it must live in an importable module.
"""

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.checkpoint.preload"])


class Died:
    """In place of a result: the rank ended without one."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code

    def __repr__(self) -> str:
        return f"Died({self.exit_code})"


def run_ranks(
    job: Callable[..., Any], directory: Path, *args: Any, world: int, timeout_s: float = 90.0
) -> list[Any]:
    """Result of ``job(rank, directory, *args)`` of every rank; an exception of one fails the test.

    A rank that is killed gives :class:`Died`. No process outlives the call.
    """
    directory.mkdir(parents=True, exist_ok=True)
    store = directory / f"store-{time.monotonic_ns()}"
    pipes, processes = [], []
    for rank in range(world):
        here, there = _context.Pipe(duplex=False)
        process = _context.Process(
            target=_rank_main, args=(there, job, rank, world, store, (directory, *args))
        )
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    deadline = time.monotonic() + timeout_s
    try:
        return _collect(pipes, processes, deadline)
    finally:
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()


def _collect(pipes: list[Any], processes: list[Any], deadline: float) -> list[Any]:
    results: list[Any] = []
    errors = []
    for rank, (pipe, process) in enumerate(zip(pipes, processes, strict=True)):
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            errors.append(f"rank {rank} gave no result in time")
            continue
        try:
            kind, value = pipe.recv()
        except EOFError:
            process.join()
            kind, value = "ok", Died(process.exitcode)
        if kind == "error":
            errors.append(f"rank {rank}:\n{value}")
        results.append(value)
    assert not errors, "\n".join(errors)
    return results


def _rank_main(
    pipe: Connection, job: Callable[..., Any], rank: int, world: int, store: Path, args: Any
) -> None:
    import torch
    import torch.distributed as dist

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        pipe.send(("ok", job(rank, *args)))
    except BaseException:  # noqa: BLE001  # travels to the test
        pipe.send(("error", traceback.format_exc()))
