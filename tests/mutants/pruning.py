"""Managers that delete the wrong checkpoints, too many of them, or none."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path
from tests.mutants.publishing import PublishesAtTheNextSave


class Pruner(SimpleManager):
    """Base: deletes in order what a rule names."""

    def _ordered(self) -> list[Path]:
        return sorted(simple_manager._committed(self._dir), key=simple_manager._order)

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            victim = self._dir / simple_manager.REMOVED.format(step=simple_manager._step(path))
            path.rename(victim)
            simple_manager._sync(self._dir)
            shutil.rmtree(victim)


class PrunesAtTheStart(Pruner):
    """A03, C01: room is made for the new checkpoint before its first byte is written."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        if dist.get_rank() == 0:
            self._remove(self._ordered()[: 1 - self._config.keep_last_n or None])
        super().save(step, *args, **kwargs)


class DeletesTheNewest(Pruner):
    """C06: the list of what may go has its newest entry first."""

    def _prune(self, newest: Path) -> None:
        newest_first = self._ordered()[::-1]
        self._remove(newest_first[: -self._config.keep_last_n])


class DoesNotKnowTheProtected(Pruner):
    """C05: a full path and the text of `latest` are compared, which never are equal."""

    def _prune(self, newest: Path) -> None:
        protected = (self._dir / "latest").readlink()
        others = [path for path in self._ordered() if path != protected]
        self._remove(others[: max(0, len(others) + 1 - self._config.keep_last_n)])


class CountsTheSidecars(Pruner):
    """C03: a directory `step_N` of the loader inside each checkpoint counts as another one."""

    def _seal(self, staging: Path, step: int, *args: Any) -> None:
        (staging / "loader" / f"step_{step}").mkdir(parents=True)
        super()._seal(staging, step, *args)

    def _prune(self, newest: Path) -> None:
        found = sorted(self._dir.rglob("step_*"), key=simple_manager._step)
        victims = found[: -self._config.keep_last_n]
        self._remove(path for path in victims if path.parent == self._dir)


class SortsByStep(Pruner):
    """C07: the highest steps stay, even if the one that was just saved is lower than all."""

    def _prune(self, newest: Path) -> None:
        counted = [
            path
            for path in simple_manager._committed(self._dir)
            if not self._config.is_dynamic_milestone(simple_manager._step(path))
        ]
        counted.sort(key=simple_manager._step)
        self._remove(counted[: -self._config.keep_last_n])


class KeepsZero(Pruner):
    """Only a negative number means all, so that of zero none but the newest stays."""

    def _prune(self, newest: Path) -> None:
        keep = self._config.keep_last_n
        if keep >= 0:
            self._remove([path for path in self._ordered()[: -keep or None] if path != newest])


class CountsBackwards(Pruner):
    """Only zero means all; a negative number is a slice from the other end."""

    def _prune(self, newest: Path) -> None:
        keep = self._config.keep_last_n
        if keep != 0:
            self._remove([path for path in self._ordered()[:-keep] if path != newest])


class StagesPruneAlone(Pruner):
    """C12: a stage deletes its own part of the old ones as soon as its own part is written."""

    def _write_shards(self, staging: Path) -> None:
        super()._write_shards(staging)
        for path in self._ordered()[: -self._config.keep_last_n + 1 or None]:
            shutil.rmtree(self._place(path))


class RemembersInMemory(Pruner):
    """C14: only what this process has saved is ever deleted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._saved: list[Path] = []

    def _prune(self, newest: Path) -> None:
        self._saved.append(newest)
        while len(self._saved) > self._config.keep_last_n:
            self._remove([self._saved.pop(0)])


class PrunesTwice(Pruner):
    """D07: the list of what has to go is worked through in two places."""

    def _prune(self, newest: Path) -> None:
        victims = self._ordered()[: -self._config.keep_last_n]
        self._remove(victims)
        self._remove(victims)


class CountsTheAbandonedBranch(SimpleManager):
    """Checkpoints that the run did not go on from are kept in place of its own."""

    def _seal(self, staging: Path, step: int, *args: Any) -> None:
        super()._seal(staging, step, *args)
        self._abandoned = {}


class DeletesTheUnmarked(SimpleManager):
    """B12: what has no description of ours is taken for a torn save, whoever wrote it."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        if dist.get_rank() == 0:
            for path in Path(config.dir).glob("step_*"):
                if not (path / "metadata.json").exists():
                    shutil.rmtree(path)


class SweepsTheSaveUnderWay(PublishesAtTheNextSave):
    """L08, C13: the save before is published, and clears away the one that has begun."""

    def save(self, step: int, *args: Any, **kwargs: Any) -> None:
        SimpleManager.save(self, step, *args, **kwargs)

    def _write_shards(self, staging: Path) -> None:
        super()._write_shards(staging)
        if dist.get_rank() == 0:
            self.wait()
        dist.barrier()
