"""Rank functions for tests in which something goes wrong on one rank only."""

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint.loading import StateLoader
from kempnerforge.checkpoint.protocol import choosing
from kempnerforge.checkpoint.runtime.collective import GlooCollective
from tests.checkpoint.telling import await_acknowledged, tell
from tests.checkpoint.training import Job


def _error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except BaseException as error:  # noqa: BLE001  # what a rank is told
        return f"{type(error).__name__}: {error}"
    return ""


def one_rank_gave_its_save_up(rank: int, directory: Path) -> dict[str, Any]:
    """Rank 1 gave up on a background save that rank 0 has published; then all load, and save."""
    job = Job(directory, rank, seed=1, async_mode="async")
    genuine, answers = GlooCollective.answer, []

    def answer(self: GlooCollective, replies: Any, *, timeout_s: float) -> Any:
        answers.append(replies)
        if len(answers) != 2:
            return genuine(self, replies, timeout_s=timeout_s)
        if rank == 0:
            await_acknowledged("1 gave up")
            return genuine(self, replies, timeout_s=timeout_s)
        try:
            return genuine(self, replies, timeout_s=1.0)
        finally:
            tell("1 gave up")

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
    healed = threading.Event()
    genuine, share = StateLoader.prepare, choosing._WORK_SHARE

    def hang(self: StateLoader, candidate: Any) -> Any:
        healed.wait(60)
        return genuine(self, candidate)

    if rank == hanging:
        StateLoader.prepare = hang  # type: ignore[method-assign]
        choosing._WORK_SHARE = 4 / 30  # 4 s; the others wait for it as long as ever
    started = time.monotonic()
    error = _error_of(job.load)
    seconds, collects = time.monotonic() - started, gc.isenabled()
    healed.set()
    choosing._WORK_SHARE = share
    loaded = job.load()[0]
    return {"error": error, "seconds": seconds, "collects": collects, "loaded": loaded}


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "checkpoints").glob("step_*"))
