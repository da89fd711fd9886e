"""What the ranks do in tests in which something goes wrong on one of them alone."""

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.collective import GlooCollective
from kempnerforge.checkpoint.errors import CorruptCheckpointError
from kempnerforge.checkpoint.loading import LoadJob
from tests.checkpoint.training import Job


def _error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # what a rank is told
        return f"{type(error).__name__}: {error}"
    return ""


def one_rank_gave_its_save_up(rank: int, directory: Path) -> dict[str, Any]:
    """Rank 1 gave up on a background save that rank 0 has published; then all load, and save."""
    job = Job(directory, rank, seed=1, async_mode="async", commit_timeout_s=8.0)
    genuine, answers = GlooCollective.answer, []

    def answer(self: GlooCollective, replies: Any, *, timeout_s: float) -> Any:
        answers.append(replies)
        if rank == 0 and len(answers) == 2:
            time.sleep(7.0)  # past rank 1's deadline for it, which is 5.2 s
        return genuine(self, replies, timeout_s=timeout_s)

    GlooCollective.answer = answer  # type: ignore[method-assign]
    job.save(1)
    before = job.digest()
    error = _error_of(job.load)
    unchanged = before == job.digest()
    loaded = job.load()[0]
    job.save(2)
    job.manager.wait()
    return {"error": error, "unchanged": unchanged, "loaded": loaded, "names": _names(directory)}


def ranks_do_different_things(rank: int, directory: Path) -> dict[str, Any]:
    """One rank loads while the other saves, both ways round."""
    job = Job(directory, rank, seed=1)
    job.save(1)
    errors = [_error_of(job.load if rank == loading else lambda: job.save(2)) for loading in (0, 1)]
    job.save(3)
    return {"errors": errors, "loaded": job.load()[0]}


def a_rank_is_ended_while_it_takes_its_state(rank: int, directory: Path) -> dict[str, Any]:
    """A callback on rank 1 raises SystemExit in a load; the program catches it and goes on."""
    job = Job(directory, rank, seed=1)
    job.save(1)
    genuine = job.loader.load_state_dict

    def leave(state: Any) -> None:
        raise SystemExit(3)

    if rank == 1:
        job.loader.load_state_dict = leave  # type: ignore[method-assign]
    error = _error_of(job.load)
    job.loader.load_state_dict = genuine  # type: ignore[method-assign]
    loaded = job.load()[0]
    job.save(2)
    return {"error": error, "loaded": loaded, "names": _names(directory)}


def a_read_hangs(rank: int, directory: Path, hanging: int) -> dict[str, Any]:
    """One rank cannot read for a while, of twelve checkpoints; then it can."""
    job = Job(directory, rank, seed=1, commit_timeout_s=60.0)
    for step in range(1, 13):
        job.save(step)
    job.manager._timeout_s = 10.0
    healed = threading.Event()
    genuine = LoadJob._read

    def hang(self: LoadJob, candidate: Any) -> Any:
        healed.wait(20)
        return genuine(self, candidate)

    if rank == hanging:
        LoadJob._read = hang  # type: ignore[method-assign]
    started = time.monotonic()
    error = _error_of(job.load)
    seconds, collects = time.monotonic() - started, gc.isenabled()
    healed.set()
    job.manager._timeout_s = 60.0
    loaded = job.load()[0]
    return {"error": error, "seconds": seconds, "collects": collects, "loaded": loaded}


def damage_and_a_slow_read(rank: int, directory: Path) -> dict[str, Any]:
    """Rank 0 finds the newest of two checkpoints damaged, and rank 1 cannot read it in time."""
    job = Job(directory, rank, seed=1, commit_timeout_s=60.0)
    job.save(1)
    job.save(2)
    job.manager._timeout_s = 10.0
    told = threading.Event()
    genuine = LoadJob._read

    def fail(self: LoadJob, candidate: Any) -> Any:
        if rank == 0:
            raise CorruptCheckpointError("bits")
        told.wait(20)
        return genuine(self, candidate)

    LoadJob._read = fail  # type: ignore[method-assign]
    error = _error_of(job.load)
    told.set()
    LoadJob._read = genuine  # type: ignore[method-assign]
    job.manager._timeout_s = 60.0
    return {"error": error, "loaded": job.load()[0]}


def cleaning_up_is_slow(rank: int, directory: Path) -> dict[str, Any]:
    """Rank 0 cleans up at the end of a load until the save after it is over."""
    job = Job(directory, rank, seed=1, commit_timeout_s=20.0)
    job.save(1)
    saved = threading.Event()

    def clean_up(storage: object) -> None:
        saved.wait(60)

    if rank == 0:
        job.manager._finish_off = clean_up  # type: ignore[method-assign]
    errors = [_error_of(job.load), _error_of(lambda: job.save(2))]
    saved.set()
    return {"errors": errors, "names": _names(directory)}


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").glob("step_*"))
