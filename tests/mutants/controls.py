"""Controls that write in unusual ways, which nobody must accuse."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist

from kempnerforge.checkpoint.errors import CheckpointError
from kempnerforge.checkpoint.manager import CheckpointManager
from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class RaisesLikeTorch(CheckpointManager):
    """A save that failed raises what is no Exception, as torch's CheckpointException."""

    def save(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().save(*args, **kwargs)
        except CheckpointError as error:
            raise NotAnException(str(error)) from error


class NotAnException(BaseException):
    """Stands for CheckpointException, which tells of each rank on lines of its own."""


class RenamesThenSyncs(SimpleManager):
    """Each file is written beside its name, renamed over it, and synced under the new name."""

    def _seal(self, staging: Path, *args: Any) -> None:
        super()._seal(staging, *args)
        for path in staging.rglob("*"):
            if path.is_file():
                part = path.with_name(path.name + ".part")
                part.write_bytes(path.read_bytes())
                part.rename(path)
        simple_manager._sync_tree(staging)


class Appends(SimpleManager):
    """A log beside the state is opened for appending again and again, by every rank."""

    def _write_shards(self, staging: Path) -> None:
        super()._write_shards(staging)
        for line in (b"one\n", b"two\n"):
            with (staging / "log.txt").open("ab", buffering=0) as file:
                file.write(line)


class SyncsEverything(SimpleManager):
    """No fsync of single files: the whole file system is synced, and names are written through."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        simple_manager._sync_tree = lambda directory: os.sync()  # noqa: TID251
        super().__init__(*args, **kwargs)


class LinksWithADot(SimpleManager):
    """`latest` is `./step_N/`, which is relative, too."""

    def _publish(self, staging: Path, step: int) -> None:
        super()._publish(staging, step)
        link = self._dir / simple_manager.NEW_LATEST
        os.symlink(f"./step_{step}/", link)
        link.rename(self._dir / "latest")
        simple_manager._sync(self._dir)


class PrunesAlone(SimpleManager):
    """Ranks return as soon as the checkpoint is whole, while rank 0 still prunes."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        super().save(step, *args, **kwargs)
        if dist.get_rank() == 0:
            super()._prune(self._dir / f"step_{step}")

    def _prune(self, newest: Path) -> None:
        """Nothing yet: `save` does it when the other ranks have returned."""
