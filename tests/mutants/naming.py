"""Managers that give names too early, to the wrong thing, or not for all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class PublishesBeforeTrainState(SimpleManager):
    """A07: shards make a checkpoint, and the train state is written once it has its name."""

    def _seal(self, staging: Path, *args: Any) -> None:
        super()._seal(staging, *args)
        self._late = (staging / "train_state.pt").read_bytes()
        (staging / "train_state.pt").unlink()

    def _publish(self, staging: Path, step: int) -> None:
        super()._publish(staging, step)
        (self._dir / f"step_{step}" / "train_state.pt").write_bytes(self._late)
        simple_manager._sync_tree(self._dir / f"step_{step}")


class OverwritesInPlace(SimpleManager):
    """P01: a step that is saved again is written over the files that `latest` leads to."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        final = self._dir / f"step_{step}"
        again = [final.exists()]
        dist.broadcast_object_list(again, src=0)
        if again[0]:
            self._write_shards(final)
        super().save(step, *args, **kwargs)


class LatestNamesItself(SimpleManager):
    """R02: `latest` is made of what `latest` is."""

    def _publish(self, staging: Path, step: int) -> None:
        super()._publish(staging, step)
        self._point("latest")

    def _point(self, target: str) -> None:
        link = self._dir / simple_manager.NEW_LATEST
        link.symlink_to(target)
        link.rename(self._dir / "latest")


class LatestWithItsFolder(LatestNamesItself):
    """R04: the text of `latest` begins with the name of the folder that the link is in."""

    def _publish(self, staging: Path, step: int) -> None:
        SimpleManager._publish(self, staging, step)
        self._point(f"{self._dir.name}/step_{step}")


class RankWithATagOfItsOwn(SimpleManager):
    """F05: a stage names its directory by what it has counted since it was started."""

    _calls = 0

    def _write_shards(self, staging: Path) -> None:
        self._calls += 1
        if self._pp_rank:
            staging = self._dir / simple_manager.STAGING.format(step=2 * self._calls)
        super()._write_shards(staging)


class StagesShareADirectory(SimpleManager):
    """F01: all stages write to the same names, and the last one's metadata stays."""

    def _place(self, directory: Path) -> Path:
        return directory

    def _write_shards(self, staging: Path) -> None:
        for stage in range(dist.get_world_size() // dist.get_world_size(self._group)):
            if stage == (self._pp_rank or 0):
                super()._write_shards(staging)
            dist.barrier()


class NodesDoNotShare(SimpleManager):
    """L42, M06: each node has a disk of its own, and only that of rank 0 is the checkpoint's."""

    def _place(self, directory: Path) -> Path:
        if dist.get_rank() == 0:
            return directory
        step = directory.name.rpartition("_")[2]
        return self._dir.parent / f"node{dist.get_rank()}" / f"step_{step}"


class ClearsWhatOthersWrote(SimpleManager):
    """D06, M05: rank 0 clears the directory when another rank has begun to write to it."""

    def _seal(self, staging: Path, *args: Any) -> None:
        for path in staging.glob("rank_state_[1-9].pt"):
            path.unlink()
        super()._seal(staging, *args)


class SkipsWhatIsThere(SimpleManager):
    """A step that has a checkpoint is not saved again, even if that is of an abandoned branch."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        there = self._dir / f"step_{step}"
        is_there = there.is_dir()
        dist.barrier()
        if not is_there:
            super().save(step, *args, **kwargs)
            return
        if dist.get_rank() == 0:
            link = self._dir / simple_manager.NEW_LATEST
            link.symlink_to(there.name)
            link.rename(self._dir / "latest")
            simple_manager._sync(self._dir)
        dist.barrier()
