"""Jobs of several ranks whose `latest` cannot be written, or is seen late."""

import errno
from pathlib import Path
from typing import Any

from kempnerforge.checkpoint import CheckpointError
from tests.checkpoint.storages import Refusing
from tests.checkpoint.training import Job


def save_with_a_latest_that_cannot_be_placed(rank: int, directory: Path) -> Any:
    """Class and message of what this rank raised, and the step that it loads afterwards."""
    job = Job(directory, rank, seed=1, sharded=True)
    job.save(1)
    storage = job.manager._storage
    job.manager._storage = Refusing(
        errno.EACCES, lambda name, *files: name == "rename" and files[1] == "latest"
    )
    raised: tuple[str, str] = ("", "")
    try:
        job.save(2)
    except CheckpointError as error:
        raised = type(error).__name__, str(error)
    job.manager._storage = storage
    return (*raised, job.load()[0])
