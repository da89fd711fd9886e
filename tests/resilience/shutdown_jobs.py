"""Rank functions for tests of a shutdown."""

import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from kempnerforge.checkpoint import CheckpointError
from kempnerforge.resilience.signal_handler import ShutdownHandler
from tests.checkpoint.descriptors import sockets
from tests.checkpoint.telling import await_acknowledged, tell
from tests.checkpoint.training import Job

c10d: Any = dist.distributed_c10d


def handler_of(timeout_sec: float = 60.0) -> ShutdownHandler:
    handler = ShutdownHandler(timeout_sec=timeout_sec)
    handler.register()
    return handler


def signal_self(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def ask(handler: ShutdownHandler) -> tuple[bool | str, float]:
    """The answer, or the class of the error, and the seconds it took."""
    started = time.monotonic()
    try:
        answer: bool | str = handler.should_shutdown()
    except CheckpointError as error:
        answer = type(error).__name__
    return answer, time.monotonic() - started


def a_rank_dies(rank: int, directory: Path, victim: int) -> Any:
    """One rank is killed between two steps; the others ask twice."""
    handler = handler_of()
    handler.should_shutdown()
    if rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    answers = [ask(handler), ask(handler)]
    tell(f"{rank} asked")  # whoever asks later must not live on the death of whoever asked first
    await_acknowledged(
        *(f"{other} asked" for other in range(dist.get_world_size()) if other != victim)
    )
    return answers


def a_rank_hangs(rank: int, directory: Path) -> Any:
    """Rank 1 comes to an agreement that the others waited for, 1 s long."""
    handler = handler_of()
    handler.should_shutdown()
    group: Any = handler._agreement._group  # type: ignore[union-attr]
    given = group.options._timeout.total_seconds()
    if rank == 1:
        await_acknowledged("0 asked", "2 asked")
    else:
        group.set_timeout(timedelta(seconds=1.0))
    answers = [ask(handler), ask(handler)]
    tell(f"{rank} asked")
    await_acknowledged("1 asked")  # it must not live on the end of those who gave it up
    return answers, given


def a_rank_never_asks(rank: int, directory: Path) -> Any:
    """Rank 1 does not come to the first call, at which the connections are opened."""
    if rank == 1:
        await_acknowledged("0 asked")
        return None
    handler = handler_of(timeout_sec=1.0)
    answers = [ask(handler), ask(handler)]
    tell("0 asked")
    return answers


def until_shutdown(rank: int, directory: Path, signalled: list[int], delay_s: float) -> Any:
    """Trains until a signal, which each rank gets at another moment; then all save."""
    handler = handler_of()
    job = Job(directory, rank, seed=1, sharded=True)
    timer = threading.Timer(delay_s * (1 + rank), signal_self)
    if rank in signalled:
        timer.start()
    step = 0
    while not handler.should_shutdown():
        step += 1
        job.train(1)
    job.save(step)
    if rank in signalled:
        timer.join()  # afterwards a signal does again what it did before
    handler.finish()
    return step, sorted(path.name for path in (directory / "checkpoints").glob("step_*"))


def signalled_in_every_part_of_a_save(rank: int, directory: Path) -> Any:
    """Rank 0 is signalled during a background save; the emergency save follows it."""
    handler = handler_of()
    job = Job(directory, rank, seed=1, async_mode="async")
    job.save(1)
    if rank == 0:
        for _ in range(3):
            signal_self()
    answers = [handler.should_shutdown(), handler.should_shutdown()]
    job.save(2)
    job.manager.wait()
    handler.finish()
    return answers, sorted(path.name for path in (directory / "checkpoints").glob("step_*"))


def ranks_are_a_step_apart(rank: int, directory: Path) -> Any:
    """Rank 1 asks one step later than rank 0 does; the saves that follow are of other steps."""
    handler = handler_of()
    job = Job(directory, rank, seed=1)
    job.save(1)
    if rank == 1:
        signal_self()
    answers = []
    for step in range(2 + rank, 5):
        answers.append(handler.should_shutdown())
        if answers[-1]:
            try:
                job.save(step)
            except CheckpointError as error:
                return answers, str(error)
    return answers, ""


def groups_are_given_back(rank: int, directory: Path) -> Any:
    """Names in torch's registry, and sockets, before and after many handlers."""
    registered = len(c10d._world.pg_map)
    dist.barrier()
    before = len(sockets())
    for _ in range(5):
        handler = handler_of()
        handler.should_shutdown()
        if rank == 1:
            signal_self()
        assert handler.should_shutdown()
        handler.finish()
        del handler
    found = len(c10d._world.pg_map) - registered, len(sockets()) - before, threads()
    dist.barrier()  # a rank that has ended closes those of training, here too
    return found


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if "shutdown" in one.name]


def training_goes_on_meanwhile(rank: int, directory: Path) -> Any:
    """Asking does not take part in training's group: a collective of that is under way."""
    handler = handler_of()
    total = torch.ones(1)
    work: Any = dist.all_reduce(total, async_op=True) if rank == 0 else None
    answer = handler.should_shutdown()
    if rank == 1:
        work = dist.all_reduce(total, async_op=True)
    work.wait()
    dist.destroy_process_group()
    if rank == 1:
        signal_self()
    return answer, total.item(), handler.should_shutdown()


def the_other_rank_outlives_the_deadline(rank: int, directory: Path) -> Any:
    """Rank 0 alone is signalled; rank 1 learns of it and then hangs."""
    handler = handler_of()
    if rank == 0:
        signal_self()
    else:
        handler._deadline._timeout_s = 1.0
    handler.should_shutdown()
    if rank == 1:
        threading.Event().wait(60)
    handler.finish()
    return "finished"
