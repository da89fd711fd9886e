"""Managers that publish wrongly: too early, too late, half of it, or not durably."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class LatestBeforeData(SimpleManager):
    """A01: `latest` names the new checkpoint before its first byte is written."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        if dist.get_rank() == 0:
            link = self._dir / simple_manager.NEW_LATEST
            link.symlink_to(f"step_{step}")
            link.rename(self._dir / "latest")
        super().save(step, *args, **kwargs)


class StepsBackWhileItSaves(SimpleManager):
    """While a save goes on, `latest` names the oldest checkpoint, which nothing is to change."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        if dist.get_rank() == 0 and (self._dir / "latest").exists():
            oldest = min(simple_manager._committed(self._dir), key=simple_manager._order)
            link = self._dir / simple_manager.NEW_LATEST
            link.symlink_to(oldest.name)
            link.rename(self._dir / "latest")
            simple_manager._sync(self._dir)
        super().save(step, *args, **kwargs)


class WritesInPlace(SimpleManager):
    """B02: files are written straight into `step_N`; a kill leaves half a checkpoint there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Half a checkpoint has no metadata.json to take the order from.
        simple_manager._order = simple_manager._step
        super().__init__(*args, **kwargs)

    def save(
        self,
        step: int,
        tokens_seen: int = 0,
        scheduler: Any = None,
        dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        final = self._dir / f"step_{step}"
        place = final if self._pp_rank is None else final / f"pp{self._pp_rank}"
        place.mkdir(parents=True, exist_ok=True)
        self._write_shards(final)
        torch.save(simple_manager._rank_state(dataloader), final / simple_manager._rank_file())
        dist.barrier()
        if dist.get_rank() == 0:
            self._seal(final, step, tokens_seen, scheduler, extra or {})
            self._publish(final, step)
        dist.barrier()

    def _publish(self, staging: Path, step: int) -> None:
        link = self._dir / simple_manager.NEW_LATEST
        link.symlink_to(staging.name)
        link.rename(self._dir / "latest")


class OneStageCommits(SimpleManager):
    """L05: rank 0 publishes as soon as its own pipeline stage is on the disk."""

    def save(
        self,
        step: int,
        tokens_seen: int = 0,
        scheduler: Any = None,
        dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        staging = self._dir / simple_manager.STAGING.format(step=step)
        simple_manager._prepare(staging, self._pp_rank)
        dist.barrier()
        if dist.get_rank() == 0:
            self._write_shards(staging)
            torch.save(
                simple_manager._rank_state(dataloader), staging / simple_manager._rank_file()
            )
            self._seal(staging, step, tokens_seen, scheduler, extra or {})
            self._publish(staging, step)
            staging = self._dir / f"step_{step}"
        dist.barrier()
        if dist.get_rank() != 0:
            staging = self._dir / f"step_{step}"
            self._write_shards(staging)
            torch.save(
                simple_manager._rank_state(dataloader), staging / simple_manager._rank_file()
            )


class NeverSyncs(SimpleManager):
    """L35: nothing is fsynced before it is published; a power cut leaves empty files."""

    def _seal(self, staging: Path, *args: Any) -> None:
        sync_tree = simple_manager._sync_tree
        simple_manager._sync_tree = lambda directory: None
        try:
            super()._seal(staging, *args)
        finally:
            simple_manager._sync_tree = sync_tree


class AbsoluteLatest(SimpleManager):
    """R01: `latest` holds an absolute path, so that it breaks when the run is moved."""

    def _publish(self, staging: Path, step: int) -> None:
        super()._publish(staging, step)
        link = self._dir / simple_manager.NEW_LATEST
        link.symlink_to(self._dir / f"step_{step}")
        link.rename(self._dir / "latest")


class PublishesAtTheNextSave(SimpleManager):
    """L16: a save that is complete and durable gets its name only when the next one begins."""

    _ready: tuple[Path, int] | None = None

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        self.wait()
        super().save(step, *args, **kwargs)

    def _publish(self, staging: Path, step: int) -> None:
        self._ready = (staging, step)

    def wait(self) -> None:
        if self._ready is not None:
            super()._publish(*self._ready)
            self._ready = None

    def flush_pending_save(self) -> None:
        self.wait()


class ReplacesByDeleting(SimpleManager):
    """L07: a step that is saved again is deleted first, while `latest` names it."""

    def _publish(self, staging: Path, step: int) -> None:
        final = self._dir / f"step_{step}"
        if final.exists():
            shutil.rmtree(final)
        super()._publish(staging, step)
