"""Rank functions for tests in which one rank cannot read."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.runtime import stale
from tests.checkpoint.failing_reads import NO_MEMORY, Failing, failing_at
from tests.checkpoint.training import Job

_CODES = (errno.ENOTCONN, errno.EACCES)
CASES = (
    *((place, 0, code) for place in ("manifest", "link", "directory") for code in _CODES),
    *(
        (place, rank, code)
        for place in ("metadata", "train state", "rank's own file", "shard", "contents")
        for rank in (0, 1)
        for code in _CODES
    ),
    ("contents", 0, NO_MEMORY),
    ("contents", 1, NO_MEMORY),
)
"""The place, the rank that cannot read it, and the error."""


def one_rank_cannot_read(rank: int, directory: Path) -> dict[Any, Any]:
    stale._PAUSES_S = (0.0, 0.0, 0.0, 0.0)
    job = Job(directory, rank, seed=1, sharded=True)
    for step in (1, 2, 3):
        job.save(step)
    return {case: _try(job, directory, rank, *case) for case in CASES}


def _try(job: Job, directory: Path, rank: int, place: str, failing: int, code: int) -> Any:
    root = directory / "checkpoints"

    def troubled(times: float) -> AbstractContextManager[Failing | None]:
        if rank != failing:
            return nullcontext()
        return failing_at(place, root, code, times=times, rank=rank)

    with troubled(1):
        once = job.load()[0]
    with troubled(float("inf")):
        always = error_of(job.load)
    dist.barrier()
    names = sorted(path.name for path in root.iterdir())
    return {"once": once, "always": always, "healed": job.load()[0], "names": names}


def error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:  # noqa: BLE001  # what a rank is told
        return f"{type(error).__name__}: {error}"
    return ""


def replaced_version_cannot_be_read(rank: int, directory: Path) -> dict[str, Any]:
    """Rank 0 cannot read the manifest of the step that is saved again."""
    stale._PAUSES_S = (0.0, 0.0, 0.0, 0.0)
    root = directory / "checkpoints"
    job = Job(directory, rank, seed=1, sharded=True, keep_last_n=0)
    for step in (1, 2, 3):
        job.save(step)
    with failing_at("manifest", root, errno.EIO) if rank == 0 else nullcontext():
        error = error_of(lambda: job.save(3))
    job.save(4)
    names = sorted(path.name for path in root.iterdir())
    return {"error": error, "names": names, "loaded": job.load()[0]}
