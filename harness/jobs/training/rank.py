"""One rank of a job: from its plan to its exit code.

`enter` is called in a process forked from the fork server. `python -m harness.jobs.training.rank
DIRECTORY RUN RANK` does the same from a cold start. Ranks meet through a file in the run directory,
so a job needs no port; ranks on several nodes meet through a port in their own network namespace.
Numbers from the world's size up are the ranks of a second job, which nothing strikes and whose loop
ends with the first failed save.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from harness.budget import patient, read_reference
from harness.evidence.record import Started
from harness.jobs import implementation_server
from harness.jobs.training.devices import take_device
from harness.jobs.training.event_log import EventLog
from harness.jobs.training.interrupt import end_like_an_interpreter, end_uncaught
from harness.jobs.training.parallel import find_place, limit_waits, training_timeout
from harness.jobs.training.train import train
from harness.plan.model import Plan
from harness.scenario.schema import Checkpoint
from harness.system.network import LINK, PORT, address
from harness.system.wall_clock import own_wall_clock
from harness.world import World


def enter(directory: str, run: int, rank: int) -> int:
    """Run one rank. Returns its exit code; the caller has nothing left to do but `os._exit`."""
    event_log = EventLog(Path(directory, f"run{run}", f"rank{rank}.jsonl"))
    try:
        _work(Path(directory), run, rank, event_log)
    except BaseException as error:  # noqa: BLE001 - whatever ends a rank is evidence
        event_log.record_raised(error)
        if _ends_like_a_script(Path(directory), run):
            return end_uncaught(error)
        sys.stdout.flush()
        sys.stderr.flush()
        # The other ranks may be gone: a clean end of the process groups could wait for them.
        return 1
    return 0


def _ends_like_a_script(directory: Path, run: int) -> bool:
    """Whether the interpreter's shutdown is part of the run, even after an error."""
    return any(one.fault.ends_interpreter for one in _read_plan(directory).runs[run].strikes)


def _read_plan(directory: Path) -> Plan:
    return Plan.model_validate_json((directory / "plan.json").read_bytes())


def _work(directory: Path, run: int, number: int, event_log: EventLog) -> None:
    plan = _read_plan(directory)
    _refuse_early_import(plan)
    job, rank = divmod(number, plan.workload_of(run).world.size)
    if job:
        plan = plan.as_second_job(run)
    if any(one.fault.clock_ahead_s is not None for one in plan.runs[run].strikes):
        own_wall_clock()  # while there are no other threads
    event_log.record(Started(rank=rank, pid=os.getpid(), versions=_versions()))
    world = plan.workload_of(run).world
    with event_log.during("build"):
        _set_environment(rank, world)
        torch.set_num_threads(1)
        device, backend = take_device(plan.workload, rank, world.size, directory)
        limit = training_timeout(world, _asked(plan, directory))
        dist.init_process_group(
            backend,
            init_method=_meeting_place(directory / f"run{run}" / f"store{job}", world, job),
            rank=rank,
            world_size=world.size,
            timeout=limit,
        )
        shares = plan.checkpoint is not None and plan.checkpoint.shares_groups
        place = find_place(world, rank, torch.device(device), backend=backend, shares_groups=shares)
        limit_waits(place, limit)
    finished = train(plan, run, directory, place=place, event_log=event_log)
    with event_log.during("exit"):
        dist.destroy_process_group()
        end_like_an_interpreter()
    event_log.record(replace(finished, threads=_other_threads()))


def _refuse_early_import(plan: Plan) -> None:
    if implementation_server.kept == plan.implementation.code:
        return
    early = sorted(name for name in sys.modules if name.split(".")[0] == "kempnerforge")
    if early:
        raise RuntimeError(
            f"the package under test was imported before the rank began: {', '.join(early[:3])}; "
            "a rank must import it itself, from the path that its plan names"
        )


def _set_environment(rank: int, world: World) -> None:
    if not dist.is_torchelastic_launched():
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world.size))
    if world.nodes > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = LINK


def _asked(plan: Plan, directory: Path) -> Checkpoint | None:
    """Returns the manager's settings on this machine."""
    return plan.checkpoint and patient(plan.checkpoint, read_reference(directory))


def _meeting_place(file: Path, world: World, job: int) -> str:
    """Returns torchrun's own store; else a file, or rank 0's store, which a cut separates."""
    if dist.is_torchelastic_launched():
        return "env://"
    return f"file://{file}" if world.nodes == 1 else f"tcp://{address(0)}:{PORT + job}"


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchdata": version("torchdata"),
        "numpy": np.__version__,
    }


def _other_threads() -> tuple[str, ...]:
    """Returns the Python threads that are left when the interpreter has ended its own."""
    main = threading.main_thread()
    return tuple(sorted(thread.name for thread in threading.enumerate() if thread is not main))


if __name__ == "__main__":
    os._exit(enter(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
