"""What a rank does: train, save at some steps, and go on until it is ended."""

import itertools
import random
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from kempnerforge.checkpoint import CheckpointManager
from kempnerforge.config.schema import AsyncCheckpointMode, CheckpointConfig
from tests.world.digest import state_of
from tests.world.thing import Program, Thing

Report = Callable[[dict[str, Any]], None]
"""Says one thing to the test; nothing that comes after is heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A process set of one run."""

    seed: int
    """Of the weights and draws that it begins with: another one where a load must replace them."""
    resumes_at: int | None = None
    save: int | None = None
    """The step after which it saves."""
    last: int
    """The step after which it reports."""
    mode: AsyncCheckpointMode = AsyncCheckpointMode.disabled


PHASES = {
    "uninterrupted": Phase(seed=1, last=6),
    "killed": Phase(seed=1, save=2, last=3),
    "resumed": Phase(seed=50, resumes_at=2, save=4, last=5, mode=AsyncCheckpointMode.async_pinned),
    "resumed again": Phase(seed=90, resumes_at=4, last=6),
}


def run(thing: Thing, phase: Phase, directory: Path, report: Report) -> None:
    """One rank's part; where it saves, it trains on after its report until it is killed.

    Reports the state by step, or the traceback as ``error``.
    """
    try:
        _run(thing, phase, directory, report)
    except BaseException as error:
        traceback.print_exc(file=sys.stderr)
        report({"error": "".join(traceback.format_exception(error))})
        raise


def _run(thing: Thing, phase: Phase, directory: Path, report: Report) -> None:
    program = _made(thing, phase.seed)
    if phase.resumes_at is not None:
        program.on_resume(phase.resumes_at)
    config = CheckpointConfig(
        dir=str(directory), async_mode=phase.mode, keep_last_n=0, commit_timeout_s=240.0
    )
    manager = CheckpointManager(config, program.model, program.optimizer)
    begin, found = 0, {}
    if phase.resumes_at is not None:
        begin, _, extra = manager.load(scheduler=program.scheduler)
        program.take_extra(extra)
        found[begin] = state_of(program)
    for step in itertools.count(begin + 1):
        loss = program.step(program, step)
        if step <= phase.last:
            found[step] = {"loss": float(loss).hex(), **state_of(program)}
        if step == phase.save:
            manager.save(step, scheduler=program.scheduler, extra=program.extra())
        if step == phase.last:
            manager.wait()
            report({"states": found})
            if phase.save is None:
                return


def _made(thing: Thing, seed: int) -> Program:
    rank = dist.get_rank() if dist.is_initialized() else 0
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    program = thing.build()
    torch.manual_seed(seed + 1000 + rank)
    random.seed(seed + rank)
    np.random.seed(seed + rank)
    return program
