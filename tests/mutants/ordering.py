"""Managers that lack one sync: right as long as the machine has power.

Each publishes complete checkpoints, and a kill at any instant is survived. Only the order in which
things become durable is wrong.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from tests.harness import simple_manager
from tests.harness.simple_manager import ShutdownHandler as ShutdownHandler
from tests.harness.simple_manager import SimpleManager
from tests.harness.simple_manager import resolve_resume_path as resolve_resume_path


def _give_name(staging: Path, final: Path) -> None:
    """Rename, or exchange with what has the name; the other is a leftover for the next start."""
    if final.exists():
        simple_manager._exchange(staging, final)
    else:
        staging.rename(final)


class ForgetsOneShard(SimpleManager):
    """The shard of rank 0 is never fsynced."""

    def _write_shards(self, staging: Path) -> None:
        writer = FileSystemWriter(self._place(staging), sync_files=False)
        dcp_save(self._tensors(), storage_writer=writer, process_group=self._group)

    def _seal(self, staging: Path, *args: Any) -> None:
        sync = simple_manager._sync

        def sync_others(path: Path) -> None:
            if path.name != "__0_0.distcp":
                sync(path)

        simple_manager._sync = sync_others
        try:
            super()._seal(staging, *args)
        finally:
            simple_manager._sync = sync


class ForgetsTheDirectory(SimpleManager):
    """Every file is fsynced, the directory of the checkpoint is not."""

    def _seal(self, staging: Path, *args: Any) -> None:
        sync = simple_manager._sync

        def sync_files(path: Path) -> None:
            if not path.is_dir():
                sync(path)

        simple_manager._sync = sync_files
        try:
            super()._seal(staging, *args)
        finally:
            simple_manager._sync = sync


class ForgetsTheLastSync(SimpleManager):
    """`latest` is swapped last, and nothing is fsynced after it."""

    def _publish(self, staging: Path, step: int) -> None:
        # What the last save made superfluous: after the swap a deletion would sync for us.
        if (self._dir / "latest").is_dir():
            self._prune((self._dir / "latest").resolve())
        final = self._dir / f"step_{step}"
        _give_name(staging, final)
        simple_manager._sync(self._dir)
        link = self._dir / simple_manager.NEW_LATEST
        link.symlink_to(final.name)
        link.rename(self._dir / "latest")


class RenamesTooEarly(SimpleManager):
    """The directory gets its name first and is fsynced under it."""

    def _seal(self, staging: Path, *args: Any) -> None:
        sync_tree = simple_manager._sync_tree
        simple_manager._sync_tree = lambda directory: None
        try:
            super()._seal(staging, *args)
        finally:
            simple_manager._sync_tree = sync_tree

    def _publish(self, staging: Path, step: int) -> None:
        final = self._dir / f"step_{step}"
        _give_name(staging, final)
        simple_manager._sync_tree(final)
        simple_manager._sync(self._dir)
        link = self._dir / simple_manager.NEW_LATEST
        link.symlink_to(final.name)
        link.rename(self._dir / "latest")
        simple_manager._sync(self._dir)
        self._prune(final)


class PrunesBeforeTheData(RenamesTooEarly):
    """The old checkpoint is deleted, and only then is the data of the new one fsynced."""

    def _publish(self, staging: Path, step: int) -> None:
        final = self._dir / f"step_{step}"
        _give_name(staging, final)
        link = self._dir / simple_manager.NEW_LATEST
        link.symlink_to(final.name)
        link.rename(self._dir / "latest")
        self._prune(final)
        simple_manager._sync_tree(final)
        simple_manager._sync(self._dir)


class PrunesTooEarly(SimpleManager):
    """The old checkpoint is deleted before the names of the new one are fsynced."""

    def _publish(self, staging: Path, step: int) -> None:
        final = self._dir / f"step_{step}"
        _give_name(staging, final)
        link = self._dir / simple_manager.NEW_LATEST
        link.symlink_to(final.name)
        link.rename(self._dir / "latest")
        committed = sorted(simple_manager._committed(self._dir), key=simple_manager._order)
        for path in committed[: -self._config.keep_last_n]:
            victim = self._dir / simple_manager.REMOVED.format(step=simple_manager._step(path))
            path.rename(victim)
            shutil.rmtree(victim)
        simple_manager._sync(self._dir)
