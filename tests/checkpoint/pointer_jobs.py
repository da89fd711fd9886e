"""Jobs of several ranks in which `latest` cannot be written, or is seen late."""

import errno
import os
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint import CheckpointError
from kempnerforge.checkpoint.protocol import visibility
from kempnerforge.checkpoint.protocol.storage import Stamp
from kempnerforge.checkpoint.runtime import board
from kempnerforge.checkpoint.runtime.storage import LocalStorage
from tests.checkpoint.effects import give
from tests.checkpoint.storages import Refusing
from tests.checkpoint.training import Job


def save_with_a_latest_that_cannot_be_placed(rank: int, directory: Path) -> Any:
    """Class and message of what this rank raised, and the step that it loads afterwards."""
    job = Job(directory, rank, seed=1, sharded=True)
    job.save(1)
    storage = job.manager._runtime.storage
    give(
        job.manager,
        storage=Refusing(
            errno.EACCES, lambda name, *files: name == "rename" and files[1] == "latest"
        ),
    )
    raised: tuple[str, str] = ("", "")
    try:
        job.save(2)
    except CheckpointError as error:
        raised = type(error).__name__, str(error)
    give(job.manager, storage=storage)
    return (*raised, job.load()[0])


def load_where_other_ranks_see_late(rank: int, directory: Path, kind: str, looks: int) -> Any:
    """What is loaded, and passed over, where rank 1 sees step 2 wrong for so many looks."""
    job = Job(directory, rank, seed=1, sharded=True, keep_last_n=0)
    for step in (1, 2):
        job.save(step)
    visibility.PAUSES_S = (0.0,) * 9
    job = Job(directory, rank, seed=2, sharded=True)
    classes = {"missing": _Missing, "short": _Short}
    give(job.manager, storage=classes[kind](looks if rank == 1 else 0))
    step = job.load()[0]
    assert job.manager.last_load is not None
    return step, job.manager.last_load.passed_over


class _Late(LocalStorage):
    def __init__(self, looks: int) -> None:
        self.looks = looks

    def may_lag(self, path: Path) -> bool:
        return True


class _Missing(_Late):
    """Files of step 2 are not found yet."""

    def read(self, path: Path) -> bytes:
        if "step_2" in path.parts and self.looks > 0:
            self.looks -= 1
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return super().read(path)


class _Short(_Late):
    """Files of step 2 have the sizes of an older version, and no more of them is read."""

    def size(self, path: Path) -> int:
        if "step_2" in path.parts and self.looks > 0:
            self.looks -= 1
            return 10
        return super().size(path)

    def read(self, path: Path) -> bytes:
        return super().read(path)[: 10 if self.looks > 0 and "step_2" in path.parts else None]


class _OldListing(LocalStorage):
    """A client that lists a directory without a name for so many looks, whatever is tried."""

    def __init__(self, name: str, looks: int, *, lags: bool) -> None:
        self.name, self.looks, self.lags = name, looks, lags

    def may_lag(self, path: Path) -> bool:
        return self.lags

    def names(self, directory: Path) -> tuple[str, ...]:
        found = super().names(directory)
        if self.looks <= 0 or self.name not in found:
            return found
        self.looks -= 1
        return tuple(name for name in found if name != self.name)

    def read_link(self, path: Path) -> str | None:
        return "step_1" if self.looks > 0 and "latest" in path.name else super().read_link(path)

    def stamp(self, path: Path) -> Stamp | None:
        return None if self.looks > 0 and path.name == self.name else super().stamp(path)


def load_after_a_start_that_told_the_store(rank: int, directory: Path) -> Any:
    """The step that is loaded, or the error, by how long and on what step 2 is not seen."""
    job = Job(directory, rank, seed=1, keep_last_n=0)
    for step in (1, 2):
        job.save(step)
    visibility.PAUSES_S = (0.0,) * 9
    found: dict[str, Any] = {}
    for start in ("same", "next"):
        board._ME += start if start == "next" else ""
        for looks, lags in ((4, True), (10_000, True), (10_000, False)):
            manager = Job(directory, rank, seed=2).manager
            give(manager, storage=_OldListing("step_2", looks, lags=lags))
            try:
                found[f"{start}, {looks}, {lags}"] = manager.load()[0]
            except CheckpointError as error:
                found[f"{start}, {looks}, {lags}"] = f"{type(error).__name__}: {error}"
    return found
