"""Managers that tell the job something that is not true, or end it when it should go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


class LosesTokens(SimpleManager):
    """The count of tokens starts again at every resume."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        step, _, extra = super().load(*args, **kwargs)
        return step, 0, extra


class DescribesEarlierTokens(SimpleManager):
    """`metadata.json` has the tokens of the save before; what a load gives back is right."""

    _earlier = 0

    def _seal(
        self, staging: Path, step: int, tokens_seen: int, scheduler: Any, extra: dict[str, Any]
    ) -> None:
        super()._seal(staging, step, tokens_seen, scheduler, extra)
        path = staging / "metadata.json"
        said = json.loads(path.read_text()) | {"tokens_seen": self._earlier}
        path.write_text(json.dumps(said))
        simple_manager._sync_tree(staging)
        self._earlier = tokens_seen


class DropsExtra(SimpleManager):
    """Of the extra values only those come back that the manager knows."""

    def load(self, *args: Any, **kwargs: Any) -> tuple[int, int, dict[str, Any]]:
        step, tokens_seen, extra = super().load(*args, **kwargs)
        return step, tokens_seen, {key: extra[key] for key in ("epoch",) if key in extra}


class ReturnsWhileRankZeroCommits(SimpleManager):
    """Only rank 0 waits until its directory is a checkpoint: the others have done their part."""

    def save(
        self,
        step: int,
        tokens_seen: int = 0,
        scheduler: Any = None,
        dataloader: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        staging = self._dir / simple_manager.STAGING.format(step=step)
        simple_manager._agree(lambda: simple_manager._prepare(staging, self._pp_rank))
        simple_manager._agree(lambda: self._write_shards(staging))
        mine = simple_manager._rank_state(dataloader)
        simple_manager._agree(lambda: torch.save(mine, staging / simple_manager._rank_file()))
        if dist.get_rank() == 0:
            self._seal(staging, step, tokens_seen, scheduler, extra or {})
            self._publish(staging, step)


class SkipsEverySecond(SimpleManager):
    """Every second save returns without having done anything."""

    _calls = 0

    def save(self, *args: Any, **kwargs: Any) -> None:
        self._calls += 1
        if self._calls % 2:
            super().save(*args, **kwargs)


class NeverSyncsTheRoot(SimpleManager):
    """The names in the checkpoint directory are never synced: a power cut takes all checkpoints."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        sync, root = simple_manager._sync, Path(args[0].dir)

        def sync_others(path: Path) -> None:
            if path != root:
                sync(path)

        simple_manager._sync = sync_others
        super().__init__(*args, **kwargs)


class WritesAfterTheSync(SimpleManager):
    """L35: a file is written once more after it was synced."""

    def _publish(self, staging: Path, step: int) -> None:
        metadata = staging / "metadata.json"
        metadata.write_bytes(metadata.read_bytes())
        super()._publish(staging, step)


class RefusesToSaveAgain(SimpleManager):
    """P04: the emergency save finds its step there already, and raises."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        if (self._dir / f"step_{step}").exists():
            raise FileExistsError(f"step_{step}")
        dist.barrier()
        super().save(step, *args, **kwargs)


class DiesOfTheSecondSave(SimpleManager):
    """P03: saving over what is there ends the process with a bus error."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        if (self._dir / f"step_{step}").exists():
            os.kill(os.getpid(), signal.SIGBUS)
        dist.barrier()
        super().save(step, *args, **kwargs)
