"""Rank functions for a test in which another job saves in their directory."""

from __future__ import annotations

from pathlib import Path

import torch.distributed as dist

from kempnerforge.checkpoint import CheckpointError
from kempnerforge.checkpoint.protocol.process import ProcessMemory
from kempnerforge.checkpoint.runtime.process import THIS_PROCESS
from tests.checkpoint.effects import give
from tests.checkpoint.training import Job


def replaces_a_foreign_step(rank: int, directory: Path) -> str:
    job = Job(directory, rank, seed=1, sharded=True)
    process = ProcessMemory(THIS_PROCESS.new_save_id)
    give(job.manager, process=process)
    job.save(1)
    job.save(2)
    if rank == 0:  # from now on the second one is not known to be of this process
        process._own.clear()
        stock = job.manager._register._stock
        assert stock is not None
        assert stock.highest == 0
    dist.barrier()
    try:
        job.save(2)
    except CheckpointError as error:
        return f"{type(error).__name__}: {error}"
    return "saved"
